//! The dashboard's picture of who calls whom, in a real browser: nothing covers anything else.

use cellmesh_tests::browser::Browser;
use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Node, Run};
use serde_json::{Value, json};

/// Calls that skip layers, that lead back, that go to the caller itself; names that are long and alike.
const CALLS: &str = "[
    [null, 'front', 60, 0], ['front', 'cache', 50, 0], ['front', 'db', 10, 0.5], ['cache', 'idle', 0, 0], ['idle', 'db', 0, 0],
    ['db', 'front', 3, 0], ['db', 'db', 3, 0], [null, 'db', 2, 0.1], ['front', 'service-with-long-name-cart', 12.3, 0.25],
    ['front', 'service-with-long-name-checkout', 12.3, 0.25], ['service-with-long-name-cart', 'db', 9, 1],
    ['service-with-long-name-checkout', 'db', 9, 1]]";

/// Shows `CALLS` and measures: lines inside of boxes that are not theirs, labels on boxes, labels on labels, labels that lines may go
/// through, names.
const MEASURE: &str = "
    const figure = (seconds) => ({seconds, beyond: false});
    const edges = CALLS.map(([from, to, rate, errorShare]) =>
        ({from, to, rate, total: rate, p50: figure(0.0123), p99: figure(0.0123), errorRate: rate * errorShare, errorShare}));
    const names = new Set(edges.map((edge) => edge.to));
    const cells = [...names].map((service) => ({service, rate: 12.3, p99: figure(0.0301), errorRate: 0, errorShare: 0}));
    the.showTopology({edges, cells, state: {cells: []}, seconds: 10}, () => {});
    const all = (selector) => [...document.querySelectorAll('#topology svg ' + selector)];
    const box = (one) => one.getBoundingClientRect();
    const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    const nodes = all('.node').map((node) => ({name: node.querySelector('title').textContent, box: box(node.querySelector('rect'))}));
    const labels = all('.label').map(box);
    const crossed = all('.call').flatMap((call) => {
        const path = call.querySelector('path');
        const others = nodes.filter(({name}) => name !== call.dataset.to && name !== (call.dataset.from || 'clients'));
        const at = (share) => path.getPointAtLength(share * path.getTotalLength()).matrixTransform(path.getScreenCTM());
        const points = Array.from({length: 400}, (_, index) => at(index / 400));
        const isIn = ({x, y}, {left, right, top, bottom}) => x > left && x < right && y > top && y < bottom;
        return others.filter(({box}) => points.some((point) => isIn(point, box))).map(({name}) => [call.dataset.from, call.dataset.to, name]);
    });
    return {
        crossed,
        onBoxes: labels.filter((label) => nodes.some(({box}) => meets(label, box))).length,
        onLabels: labels.filter((label, index) => labels.slice(index + 1).some((other) => meets(label, other))).length,
        labels: labels.length,
        crossedOut: all('.label').filter((label) => [...label.querySelectorAll('text')].some((text) => {
            const [back, inside] = [box(label.querySelector('rect')), box(text)];
            return inside.left < back.left || inside.right > back.right || inside.top < back.top - 2 || inside.bottom > back.bottom + 2;
        })).length,
        names: all('.name').map((name) => name.textContent),
    };";

fn measured(browser: &Browser) -> Value {
    let body = MEASURE.replace("CALLS", CALLS);
    browser.script(&format!("return import('/topology.js').then((the) => {{ {body} }})"))
}

/// Shows services that all call each other, more than are drawn, and the same calls as busy as another; then with a call more, and on
/// a screen that is narrow. How often layers and places were computed is told after each.
const CROWD: &str = "
    const figure = {seconds: 0.0123, beyond: false};
    const names = Array.from({length: SERVICES}, (_, index) => `service-${index}`);
    const pairs = names.flatMap((from) => names.map((to) => [from, to]));
    const show = (pairs, rateOf) => {
        const edges = pairs.map(([from, to], index) =>
            ({from, to, rate: rateOf(index), total: 1, p50: figure, p99: figure, errorRate: 0, errorShare: 0}));
        the.showTopology({edges, cells: [], state: {cells: []}, seconds: 10}, () => {});
        const drawn = [...document.querySelectorAll('#topology svg .call')].map(({dataset: {from, to}}) => `${from} ${to}`);
        const isDrawn = new Set(drawn);
        const [inside, outside] = [true, false].map((is) => edges.filter(({from, to}) => isDrawn.has(`${from} ${to}`) === is));
        return {
            drawn: drawn.length,
            least: Math.min(...inside.map(({rate}) => rate)),
            most: Math.max(0, ...outside.map(({rate}) => rate)),
            note: document.getElementById('topology-note').textContent,
            computed: the.layout.computed,
        };
    };
    const before = the.layout.computed;
    const all = [show(pairs, (index) => index + 1), show(pairs, (index) => (index * 7919) % 1000 + 1)];
    all.push(show(pairs.slice(1), (index) => index + 1));
    document.getElementById('topology').style.width = '300px';
    all.push(show(pairs.slice(1), (index) => index + 2));
    return all.map((one) => ({...one, computed: one.computed.map((count, index) => count - before[index])}));";

fn crowd(browser: &Browser, services: u32) -> Value {
    let body = CROWD.replace("SERVICES", &services.to_string());
    browser.script(&format!("return import('/topology.js').then((the) => {{ {body} }})"))
}

/// However many calls there are, so many are drawn: the busiest. The others are counted.
#[test]
fn picture_is_bounded() {
    let Some((_node, browser)) = opened() else { return };
    let shown = &crowd(&browser, 20)[0];
    assert_eq!(shown["drawn"], 150);
    assert!(shown["least"].as_u64() > shown["most"].as_u64(), "{shown}");
    let note = shown["note"].as_str().expect("a text");
    assert!(note.contains("The 150 busiest calls are drawn, 250 are left out"), "{note}");
}

/// Layers and places are computed when other services call each other, or the screen is another one, and not when calls
/// are busier than before.
#[test]
fn layout_is_kept_while_calls_are_the_same() {
    let Some((_node, browser)) = opened() else { return };
    let shown = crowd(&browser, 4);
    let computed: Vec<&Value> =
        shown.as_array().expect("a list").iter().map(|one| &one["computed"]).collect();
    assert_eq!(computed, [&json!([1, 1]), &json!([1, 1]), &json!([2, 2]), &json!([2, 3])]);
}

/// A node without requests, and a browser that has opened its dashboard.
fn opened() -> Option<(Node, Browser)> {
    let browser = Browser::start()?;
    let admin = nobody();
    let app = "[[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"hello\"]\n";
    let node = Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{app}")).start();
    browser.open(&format!("http://{admin}/"));
    Some((node, browser))
}

/// Lines go around the boxes between their ends, labels cover neither boxes nor each other, names that differ look different: on
/// a wide screen and on a phone.
#[test]
fn nothing_covers_anything_else() {
    let Some((_node, browser)) = opened() else { return };
    for is_phone in [false, true] {
        if is_phone {
            browser.be_phone(390, 844);
        }
        let found = measured(&browser);
        assert_eq!(found["crossed"], json!([]), "phone: {is_phone}");
        assert_eq!((&found["onBoxes"], &found["onLabels"]), (&json!(0), &json!(0)), "phone: {is_phone}");
        assert_eq!((&found["labels"], &found["crossedOut"]), (&json!(12), &json!(0)), "phone: {is_phone}");
        let names: Vec<&str> =
            found["names"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(names.contains(&"service…me-cart") && names.contains(&"service…heckout"), "{names:?}");
    }
}
