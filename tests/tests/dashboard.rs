//! The dashboard of the admin port, in a real browser.

use std::net::SocketAddr;

use cellmesh_tests::browser::{Browser, Screen, keys};
use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Node, Run, Wire};
use serde_json::json;

const APP: &str = r#"
    [[cell]]
    component = "{cells}/unruly.wasm"
    services = ["front", "back"]
"#;
/// A call of `front` that makes two calls of `back` at the same time; the first of both takes longer.
const PIPE: &str = "/pipe?url=http://back/step/sleep:50&url=http://back/";
/// One whose callee fails in a step.
const FAILING: &str = "/order?url=http://back/step/error";

fn start(admin: SocketAddr) -> Node {
    Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{APP}")).start()
}

/// A node, and a browser that has opened its dashboard; none where it is said that there is no browser.
fn opened(hash: &str) -> Option<(Node, SocketAddr, Browser)> {
    let browser = Browser::start()?;
    let admin = nobody();
    let node = start(admin);
    browser.open(&format!("http://{admin}/{hash}"));
    Some((node, admin, browser))
}

/// The text of the first element that a selector finds, or nothing.
fn text(selector: &str) -> String {
    format!("(document.querySelector({selector:?})?.textContent ?? '')")
}

/// Opens the request to `target` from the list.
fn choose(browser: &Browser, target: &str) {
    let link = format!(
        "[...document.querySelectorAll('#request-list a')].find((link) => link.title.endsWith({target:?}) || link.textContent.endsWith({target:?}))"
    );
    browser.until("the request in the list", &link);
    assert!(browser.script(&format!("{link}.click()")).is_null());
    browser.until("its heading", &format!("{}.endsWith({target:?})", text("#request-heading")));
}

/// The page says what was asked and who called whom, and nothing goes wrong in it, nor is kept from it by its policy.
#[test]
fn page_shows_cells_and_calls() {
    let Some((node, _, browser)) = opened("") else { return };
    browser.until(
        "that there is nothing yet",
        &format!("{}.includes('No requests yet')", text("#requests-note")),
    );
    for _ in 0..3 {
        assert_eq!(node.get("front", PIPE).status, 200);
    }
    for (service, count) in [("front", "3"), ("back", "6")] {
        let row = format!("#cells tr[data-key={service}] td:last-child");
        browser.until("the count of requests", &format!("{} === '{count}'", text(&row)));
    }
    for (from, to) in [("", "front"), ("front", "back")] {
        let edge = format!("#topology g[data-from='{from}'][data-to='{to}'] path");
        browser.until("the edge", &format!("document.querySelector({edge:?})"));
    }
    browser.until("readiness", &format!("{}.includes('Ready')", text("#readiness")));
    browser.until("gauges", "document.querySelectorAll('#gauges li').length > 0");
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// A node whose cells are other processes shows what it knows: services, who serves them, what clients got. What it cannot know
/// it does not show, and says where that is.
#[test]
fn node_shows_services_and_workers() {
    let Some(browser) = Browser::start() else { return };
    let admin = nobody();
    let run = Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{APP}"));
    let node = run.workers(&[&["front"]]).start();
    browser.open(&format!("http://{admin}/"));
    let column = |service: &str, column: u32| {
        text(&format!("#services tr[data-key={service}] td:nth-child({column})"))
    };
    browser.until("workers of one", &format!("/^[1-9]/.test({})", column("front", 2)));
    browser.until("none of the other", &format!("{} === '✕ none'", column("back", 2)));
    for _ in 0..3 {
        assert_eq!(node.get("front", "/").status, 200);
    }
    assert_eq!(node.get("back", "/").status, 503);
    browser.until("why it is refused", &format!("{}.includes('no-worker')", text("#services-faults")));
    browser
        .until("why, of all", &format!("/Requests refused: .*\\/s no-worker/.test({})", text("#refusals")));
    browser.until("why, of one", &format!("/^✕ .*\\/s no-worker$/.test({})", column("back", 7)));
    for (service, requests) in [("front", "3"), ("back", "1")] {
        browser.until("the count of requests", &format!("{} === '{requests}'", column(service, 10)));
    }
    browser.until("what fails", &format!("{}.includes('100 % fail')", text("#slow li[data-key=back]")));
    browser.until(
        "the other processes",
        &format!("!document.querySelector('#others').hidden && {}.includes('--admin')", text("#others")),
    );
    let hidden = "return [...document.querySelectorAll('section[data-of=cells]')].map((one) => one.hidden)";
    assert_eq!(browser.script(hidden), json!([true, true]), "cells and requests");
    node.kill_worker(0);
    browser.until("the loss of a worker", &format!("{} === '✕ none'", column("front", 2)));
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// Of a request that failed one sees where: in the list, in the waterfall, in words. What a client says is text, never markup.
#[test]
fn failed_request_names_its_step() {
    const MARKUP: &str = "<img src=x onerror=alert(1)>";
    let Some((node, _, browser)) = opened("") else { return };
    let mut wire = node.connect();
    wire.send(format!("GET {FAILING} HTTP/1.1\r\nhost: front\r\nx-request-id: {MARKUP}\r\n\r\n"));
    assert_eq!(wire.reply().status, 500);
    browser.until("a failed row", "document.querySelector('#request-list tr.bad')");
    choose(&browser, FAILING);
    let step = "#request .waterfall li.bad[data-step=guilty]";
    browser.until("the step", &format!("{}.includes('failed: an error, as asked')", text(step)));
    let cause = format!("{}.includes('Failed in back: step guilty')", text("#request-body .verdict"));
    browser.until("the cause", &cause);
    browser.until("the id", &format!("{}.includes({MARKUP:?})", text("#request-body .facts")));
    assert_eq!(browser.script("return document.querySelectorAll('#main img').length"), 0);
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// The plan's picture marks the steps that the answer waited for, and no other; the waterfall says the same, and the list too.
#[test]
fn critical_path_is_marked() {
    let Some((node, _, browser)) = opened("") else { return };
    assert_eq!(node.get("front", PIPE).status, 200);
    choose(&browser, PIPE);
    let marked = |selector: &str| {
        browser.script(&format!(
            "return [...document.querySelectorAll({selector:?})].map((one) => one.dataset.step)"
        ))
    };
    assert_eq!(marked("#request svg.plan .leaf.critical"), json!(["call#0"]));
    assert_eq!(marked("#request svg.plan .leaf"), json!(["call#0", "call#1"]));
    assert_eq!(
        marked("#request .waterfall .critical"),
        json!(["", "call#0", "", "guilty"]),
        "with the handlers of both, and what the callee did"
    );
    browser.until("words", &format!("{}.includes('on the critical path')", text("#request .plan-list")));
    let sums = text("#request-body .sums");
    browser.until("what all did", &format!("/waited .+, and ran .+ For .+ other services/.test({sums})"));
}

/// The page and its parts are here, and let nothing in that is not.
#[test]
fn page_lets_nothing_else_in() {
    let admin = nobody();
    let _node = start(admin);
    let get = |path: &str| Wire::connect(admin).get("admin", path).ok();
    let page = get("/");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    for (path, kind) in [("/style.css", "text/css"), ("/dashboard.js", "text/javascript")] {
        let file = get(path);
        let found = file.header("content-type").expect("a type");
        assert!(found.starts_with(kind) && page.text().contains(&path[1..]), "{path}: {found}");
    }
}

/// With keys alone one gets to the list and into a request, and one comes back with what is read next.
#[test]
fn keys_open_a_request() {
    const TABS_MAX: usize = 80;
    let Some((node, _, browser)) = opened("") else { return };
    assert_eq!(node.get("front", PIPE).status, 200);
    browser.until("a list", "document.querySelector('#request-list a')");
    let is_link = || browser.script("return Boolean(document.activeElement.closest('#request-list a'))");
    let reached = (0..TABS_MAX).any(|_| {
        browser.press(keys::TAB);
        is_link() == true
    });
    assert!(reached, "no link of the list within {TABS_MAX} tabs");
    let visible = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    assert_eq!(browser.script(&format!("return {visible}")), true, "one sees where one is");
    browser.press(keys::ENTER);
    browser.until("the request", "document.querySelector('#request .waterfall li')");
    browser.until("the focus at its heading", "document.activeElement.id === 'request-heading'");
    browser.until("its address", "location.hash.startsWith('#request=')");
}

/// On a phone nothing is wider than the screen, with a request open too, and one sees what failed.
#[test]
fn phone_does_not_scroll_sideways() {
    let Some((node, _, browser)) = opened("") else { return };
    browser.be_phone(360, 800);
    assert_eq!(node.get("front", PIPE).status, 200);
    assert_eq!(node.get("front", FAILING).status, 500);
    choose(&browser, FAILING);
    browser.until("the picture", "document.querySelector('#topology svg')");
    let widths = browser.script("return [innerWidth, document.documentElement.scrollWidth]");
    assert_eq!(widths, json!([360, 360]));
    // What failed is not only red: its cross is seen without scrolling the list.
    let edges = browser.script(
        "const status = document.querySelector('#request-list tr.bad td:nth-child(3)');
         return [status.textContent, status.getBoundingClientRect().right <= status.closest('.list').getBoundingClientRect().right]",
    );
    assert_eq!(edges, json!(["✕ 500", true]));
}

/// The page with requests, and with one of them open, on each screen and in both schemes. The pictures are kept for who wants to
/// see them: `target/screenshots`. Each has the width of its screen and is as high as the page, or more than that, light or
/// dark as it was wanted, and has something in it.
#[test]
fn page_is_pictured() {
    const COLOURS_MIN: u64 = 50;
    let Some((node, admin, browser)) = opened("") else { return };
    for target in ["/", PIPE, "/step/spin:30", FAILING] {
        let _ = node.get("front", target);
    }
    let desktop = Screen { width: 1280, height: 900, is_phone: false };
    let phone = Screen { width: 390, height: 844, is_phone: true };
    for (name, screen) in [("desktop", desktop), ("phone", phone)] {
        browser.be(screen);
        for (scheme, brightness) in [("light", 600..=765_u64), ("dark", 0..=165)] {
            browser.prefer(scheme);
            browser.open("about:blank");
            browser.open(&format!("http://{admin}/"));
            browser.until("rates", &format!("{}.includes('last')", text("#tiles")));
            assert_eq!((node.get("front", PIPE).status, node.get("front", FAILING).status), (200, 500));
            browser.until("calls that fail", "document.querySelectorAll('#topology .call.bad').length === 2");
            let pictured = |state: &str| {
                let picture = browser.picture(&format!("{state}-{name}-{scheme}"));
                let what = format!("{state} {name} {scheme}: {picture:?}");
                assert_eq!(picture.width, u64::from(screen.width), "{what}");
                assert!(picture.height >= u64::from(screen.height), "{what}");
                assert!(picture.colours >= COLOURS_MIN && brightness.contains(&picture.first), "{what}");
            };
            pictured("list");
            choose(&browser, FAILING);
            pictured("failed");
            choose(&browser, PIPE);
            pictured("request");
        }
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// The page says that the port is silent, and goes on by itself when there is another process, whose counters begin at zero.
#[test]
fn page_outlives_the_process() {
    let Some((node, admin, browser)) = opened("") else { return };
    let count = text("#cells tr[data-key=front] td:last-child");
    for _ in 0..3 {
        assert_eq!(node.get("front", "/").status, 200);
    }
    browser.until("its count", &format!("{count} === '3'"));
    drop(node);
    browser.until("silence", &format!("{}.includes('does not answer')", text("#silence:not([hidden])")));
    assert_eq!(browser.script(&format!("return {count}")), "3", "what was seen last stays");
    let node = start(admin);
    assert_eq!(node.get("front", "/").status, 200);
    browser
        .until("the other process", &format!("{count} === '1' && document.querySelector('#silence').hidden"));
    browser.until("the news", &format!("{}.includes('started anew')", text("#news")));
}

/// An address with a request opens it; one that is not kept says so.
#[test]
fn address_names_a_request() {
    let Some((node, admin, browser)) = opened("#request=0-99999") else { return };
    browser.until(
        "what is wrong",
        &format!("{}.includes('no request of this id is kept')", text("#request-body")),
    );
    assert_eq!(node.get("front", PIPE).status, 200);
    choose(&browser, PIPE);
    let address = browser.script("return location.href").as_str().expect("text").to_owned();
    browser.open("about:blank");
    browser.open(&address);
    browser.until("the request", &format!("{} === {:?}", text("#request-heading"), format!("GET {PIPE}")));
    assert!(address.starts_with(&format!("http://{admin}/#request=")), "{address}");
}

/// What the page computes by itself: quantiles as Prometheus has them, rates of a window, restarts, layers of calls in circles.
#[test]
fn figures_are_computed() {
    let Some((_node, _, browser)) = opened("") else { return };
    let computed = |module: &str, expression: &str| {
        browser.script(&format!("return import('/{module}').then((the) => {expression})"))
    };
    let quantile = |q: f64| {
        computed("samples.js", &format!("the.quantile({{buckets: [0, 10, 10, 5]}}, [1, 2, 4], {q})"))
    };
    assert_eq!(quantile(0.2), json!({"seconds": 1.5, "beyond": false}));
    assert_eq!(quantile(0.6), json!({"seconds": 3, "beyond": false}));
    assert_eq!(quantile(0.99), json!({"seconds": 4, "beyond": true}));
    assert_eq!(computed("samples.js", "the.quantile({buckets: [0, 0]}, [1], 0.5)"), json!(null));

    // Calls in all at these seconds; then another process that counts from zero.
    let told = "const samples = new the.Samples();
        const edge = (calls) => ({from: null, to: 'a', calls, errors: 0, duration: {count: 0, sum_seconds: 0, buckets: []}});
        const add = ([uptime_seconds, calls]) =>
            samples.add({uptime_seconds, cells: [], histogram_bounds_seconds: [1], edges: [edge(calls)]}, uptime_seconds);
        const restarts = [[100, 0], [101, 1000], [105, 1000], [111, 1020], [3, 7]].map(add);";
    let rates = |count: usize| {
        let told = told.replace(".map(add)", &format!(".slice(0, {count}).map(add)"));
        computed("samples.js", &format!("{{ {told} return [restarts.at(-1), samples.view().total.rate]; }}"))
    };
    assert_eq!(rates(1), json!([false, null]), "one sample says nothing of now");
    assert_eq!(rates(2), json!([false, 1000]));
    assert_eq!(rates(4), json!([false, 2]), "what is older than the window does not count");
    assert_eq!(rates(5), json!([true, null]));

    let edges = "[['a', 'b'], ['b', 'c'], ['c', 'a'], ['a', 'c'], ['c', 'c'], ['c', 'd']]";
    let layers = format!("the.layersOf(['a', 'b', 'c', 'd'], {edges}.map(([from, to]) => ({{from, to}})))");
    let named = "layers.map((layer) => layer.filter((id) => typeof id === 'string'))";
    assert_eq!(computed("layers.js", &format!("{layers}.{named}")), json!([["a"], ["b"], ["c"], ["d"]]));
    let lanes = "ways.map((way) => way.length - 2)";
    assert_eq!(computed("layers.js", &format!("{layers}.{lanes}")), json!([0, 0, 1, 1, 0, 0]));
    assert_eq!(browser.console(), Vec::<String>::new());
}
