//! Where two courses of one request differ. Pure.
//!
//! - Steps are compared by their ids. The numbers of functions are the cell's own, and may be others after it was built anew:
//!   they are not compared.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::inspect;
use crate::trace::{Course, Message, PlanShape, Recording, StepDeed, StepShape};

/// Letters of a value that are shown.
const SHOWN_MAX: usize = 200;

/// Something that is not as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    what: String,
    recorded: String,
    now: String,
}

/// Everything that differs: the graph first, then what its steps did, then the response.
pub(super) fn compare(recorded: &Course, now: &Course) -> Vec<Difference> {
    let mut all = Vec::new();
    plans(&mut all, recorded.plan.as_ref(), now.plan.as_ref());
    deeds(&mut all, recorded, now);
    messages(&mut all, "the response", &recorded.response, &now.response);
    all
}

/// For people.
pub(super) fn told(recording: &Recording, now: &Course, differences: &[Difference]) -> String {
    let request = &recording.request;
    let (method, url) =
        (request.method.as_deref().unwrap_or_default(), request.url.as_deref().unwrap_or_default());
    let mut out = format!("{}: {} {}\n", shown(&recording.service), shown(method), shown(url));
    if differences.is_empty() {
        out += &match &now.plan {
            Some(plan) => format!(
                "the same graph of {} steps, the same requests, results and response\n",
                plan.steps.len()
            ),
            None => "the same response, without a graph\n".to_owned(),
        };
    }
    for Difference { what, recorded, now } in differences {
        let _ = writeln!(out, "{what}\n  recorded: {}\n  now:      {}", shown(recorded), shown(now));
    }
    out
}

fn plans(all: &mut Vec<Difference>, recorded: Option<&PlanShape>, now: Option<&PlanShape>) {
    let (recorded, now) = match (recorded, now) {
        (None, None) => return,
        (Some(recorded), Some(now)) => (recorded, now),
        (recorded, now) => {
            let words = |plan: Option<&PlanShape>| {
                plan.map_or("none, the handler answers by itself".into(), |plan| {
                    format!("{} steps", plan.steps.len())
                })
            };
            return note(all, "the graph", words(recorded), words(now));
        }
    };
    note(all, "the graph: its root", recorded.root.to_string(), now.root.to_string());
    let named = |step: &Option<Box<str>>| step.as_deref().unwrap_or("the root's value").to_owned();
    note(all, "the graph: what it responds with", named(&recorded.respond_with), named(&now.respond_with));
    let old: BTreeMap<&str, &StepShape> = recorded.steps.iter().map(|step| (&*step.id, step)).collect();
    let new: BTreeMap<&str, &StepShape> = now.steps.iter().map(|step| (&*step.id, step)).collect();
    for step in &recorded.steps {
        let what = format!("step {}", shown(&step.id));
        match new.get(&*step.id) {
            Some(other) => note(all, &what, words(step), words(other)),
            None => note(all, &what, words(step), "not there".into()),
        }
    }
    for step in now.steps.iter().filter(|step| !old.contains_key(&*step.id)) {
        note(all, &format!("step {}", shown(&step.id)), "not there".into(), words(step));
    }
}

/// All that is compared of a step.
fn words(step: &StepShape) -> String {
    let mut words = format!("{:?}", step.kind).to_lowercase();
    let list = |name: &str, ids: &[Box<str>]| {
        if ids.is_empty() { String::new() } else { format!(" {name} {}", ids.join(", ")) }
    };
    words += &list("of", &step.children);
    words += &list("given", &step.inputs);
    if let Some(args) = step.args.as_deref().filter(|args| !args.is_empty()) {
        let _ = write!(words, " with {args}");
    }
    for request in &step.requests {
        let _ = write!(words, " {} {}", request.method, request.url);
    }
    if step.tolerant {
        words += " tolerant";
    }
    words
}

fn deeds(all: &mut Vec<Difference>, recorded: &Course, now: &Course) {
    let (mut old, mut new) = (by_step(recorded), by_step(now));
    let ids: Vec<String> = old
        .keys()
        .chain(new.keys())
        .cloned()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    for id in ids {
        let (old, new) = (old.remove(&id).unwrap_or_default(), new.remove(&id).unwrap_or_default());
        for place in 0..old.len().max(new.len()) {
            let what = format!("step {}", shown(&id));
            match (old.get(place), new.get(place)) {
                (Some(old), Some(new)) => deed(all, &what, old, new),
                (old, new) => {
                    let words =
                        |deed: Option<&&StepDeed>| deed.map_or("nothing".into(), |deed| summary(deed));
                    note(all, &format!("{what} did"), words(old), words(new));
                }
            }
        }
    }
}

/// What each step did, in its order; answers are the same by themselves.
fn by_step(course: &Course) -> BTreeMap<String, Vec<&StepDeed>> {
    let mut steps: BTreeMap<String, Vec<&StepDeed>> = BTreeMap::new();
    for step in course.steps.iter().filter(|step| !matches!(step.deed, StepDeed::Answered(_))) {
        steps.entry(step.step.clone()).or_default().push(&step.deed);
    }
    steps
}

fn deed(all: &mut Vec<Difference>, what: &str, old: &StepDeed, new: &StepDeed) {
    match (old, new) {
        (StepDeed::Sent(old), StepDeed::Sent(new)) => messages(all, &format!("{what} sent"), old, new),
        (StepDeed::Returned(old), StepDeed::Returned(new)) => {
            messages(all, &format!("{what} returned"), old, new);
        }
        (StepDeed::Built(old), StepDeed::Built(new)) if old.len() == new.len() => {
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                messages(all, &format!("{what} built request {}", place + 1), old, new);
            }
        }
        (old, new) if old == new => {}
        (old, new) => note(all, &format!("{what} did"), summary(old), summary(new)),
    }
}

fn summary(deed: &StepDeed) -> String {
    match deed {
        StepDeed::Sent(message) => {
            let (method, url) = (message.method.as_deref(), message.url.as_deref());
            format!("sent {} {}", method.unwrap_or_default(), url.unwrap_or_default())
        }
        StepDeed::Answered(message) | StepDeed::Returned(message) => {
            let error = message.error.as_deref().map_or_else(String::new, |error| format!(", {error}"));
            format!("came to {}{error}", message.status.unwrap_or_default())
        }
        StepDeed::Built(requests) => format!("built {} requests", requests.len()),
        StepDeed::Refused(why) => format!("failed: {why}"),
    }
}

fn messages(all: &mut Vec<Difference>, what: &str, old: &Message, new: &Message) {
    let mut field = |name: &str, old: String, new: String| note(all, &format!("{what}: {name}"), old, new);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    field("method", text(&old.method), text(&new.method));
    field("url", text(&old.url), text(&new.url));
    let status = |message: &Message| message.status.map_or_else(String::new, |status| status.to_string());
    field("status", status(old), status(new));
    field("error", text(&old.error), text(&new.error));
    let headers = |message: &Message| {
        let lines = message.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        lines.collect::<Vec<_>>().join("; ")
    };
    field("headers", headers(old), headers(new));
    let body = |message: &Message| text(&message.body) + &text(&message.body_base64);
    field("body", body(old), body(new));
}

fn note(all: &mut Vec<Difference>, what: &str, recorded: String, now: String) {
    if recorded != now {
        all.push(Difference { what: what.to_owned(), recorded, now });
    }
}

/// On one line of a terminal.
pub(super) fn shown(text: &str) -> String {
    if text.is_empty() { "(nothing)".into() } else { inspect::shown(text, SHOWN_MAX) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn course(url: &str, body: &str) -> Course {
        let course = json!({
            "plan": {"root": "call", "respond_with": null, "steps_left_out": 0, "steps": [
                {"id": "call", "kind": "egress", "children": [], "inputs": [], "tolerant": false,
                 "requests": [{"method": "GET", "url": url}]},
            ]},
            "steps": [
                {"step": "call", "sent": {"method": "GET", "url": url}},
                {"step": "call", "answered": {"status": 200, "body": "answer"}},
            ],
            "response": {"status": 200, "body": body},
        });
        serde_json::from_value(course).unwrap()
    }

    /// Nothing differs from itself; what differs is named with both values.
    #[test]
    fn differences_are_named() {
        assert_eq!(compare(&course("http://a/", "x"), &course("http://a/", "x")), []);
        let differences = compare(&course("http://a/", "x"), &course("http://b/", "y"));
        let what: Vec<&str> = differences.iter().map(|difference| &*difference.what).collect();
        assert_eq!(what, ["step call", "step call sent: url", "the response: body"]);
        assert_eq!(
            differences[2],
            Difference { what: "the response: body".into(), recorded: "x".into(), now: "y".into() }
        );
    }

    /// A step that is gone, one that is new, and a graph that is none are told.
    #[test]
    fn other_graphs_are_told() {
        let old = course("http://a/", "x");
        let mut new = old.clone();
        new.plan.as_mut().unwrap().steps[0].id = "other".into();
        let what: Vec<String> = compare(&old, &new).into_iter().map(|difference| difference.what).collect();
        assert_eq!(what, ["step call", "step other"]);
        new.plan = None;
        let differences = compare(&old, &new);
        assert_eq!((&*differences[0].what, &*differences[0].recorded), ("the graph", "1 steps"));
    }
}
