//! Cells whose answers are lies: pointers and lengths that lead nowhere, lists that blow up, graphs that are no trees.

use cellmesh_tests::components::{ANSWER, Liar};
use cellmesh_tests::{Node, Reply, Run};

/// Runs a component under the name `liar`, beside a cell that keeps to the contract.
fn node(liar: &Liar) -> Node {
    let toml = r#"
        [[cell]]
        component = "liar.wasm"
        services = ["liar"]
        [[cell]]
        component = "{cells}/hello.wasm"
        services = ["hello"]
    "#;
    Run::app(toml).with_file("liar.wasm", liar.component()).start()
}

/// The liar is answered with a 500 that has these texts, each time it is asked; others are served.
#[track_caller]
fn check(liar: &Liar, parts: &[&str]) {
    let node = node(liar);
    for _ in 0..3 {
        let reply = node.get("liar", "/");
        assert_eq!(reply.status, 500, "{}", reply.text());
        for part in parts {
            assert!(reply.error().contains(part), "{}", reply.error());
        }
        assert_eq!(node.get("hello", "/").ok().text(), "hello\n");
    }
}

/// `arena`: pointer and length. `outcome`: from its discriminant on.
fn answer(arena: [u32; 2], outcome: &[u32]) -> Liar {
    Liar::default().words(ANSWER, &arena).words(ANSWER + 8, outcome)
}

/// A response: status, span of headers, body in the arena.
fn response(arena: [u32; 2], status: u32, headers: [u32; 2], body: [u32; 2]) -> Liar {
    answer(arena, &[0, status, headers[0], headers[1], 0, body[0], body[1]])
}

/// A graph: lists of nodes, children, inputs and requests, and the root.
fn graph(nodes: [u32; 2], children: [u32; 2], inputs: [u32; 2], requests: [u32; 2], root: u32) -> Liar {
    let lists = [nodes, children, inputs, requests].concat();
    answer([4096, 64], &[&[1][..], &lists, &[root, 0]].concat())
}

/// The words of a step: id, work and what that has, a span of inputs, tolerant.
type StepWords = [u32; 14];

/// Those of an `order` or (`pipe`) with a span of children; no inputs, not tolerant.
fn group(work: u32, id: [u32; 2], children: [u32; 2]) -> StepWords {
    [id[0], id[1], work, children[0], children[1], 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Those of a step with a prepared result; no inputs, not tolerant.
fn prepared(id: [u32; 2], status: u32, headers: [u32; 2], body: [u32; 2], args: [u32; 2]) -> StepWords {
    let [h, b, a] = [headers, body, args];
    [id[0], id[1], 5, status, h[0], h[1], b[0], b[1], 0, a[0], a[1], 0, 0, 0]
}

/// Steps, the indices that they have as children, and the root.
fn tree(nodes: &[StepWords], children: &[u32], root: u32) -> Liar {
    let count = |records: usize| u32::try_from(records).expect("few");
    let lists = graph([8192, count(nodes.len())], [12_288, count(children.len())], [0, 0], [0, 0], root);
    lists.bytes(4096, "abc").words(8192, &nodes.concat()).words(12_288, children)
}

/// The harness itself: an honest answer of a hand-made component passes.
#[test]
fn honest_answer_passes() {
    let liar = response([4096, 16], 201, [0, 7], [7, 5]).bytes(4096, "a: bcd\nhello");
    let reply: Reply = node(&liar).get("liar", "/");
    assert_eq!((reply.status, reply.text(), reply.header("a")), (201, "hello", Some("bcd")));
}

/// A cell that is busy before it can be called has used up its time: 504, as if it had been called.
#[test]
fn endless_start_is_past_its_time() {
    let node = node(&Liar::default().never_starts());
    let reply = node.get("liar", "/");
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!(reply.error().contains("past its time limit"), "{}", reply.error());
    assert_eq!(node.get("hello", "/").ok().text(), "hello\n");
}

/// A pointer outside the cell's memory, for the answer itself or for its arena.
#[test]
fn pointers_outside_the_memory_are_refused() {
    check(&Liar::default().answer_at(0xffff_fff0), &[]);
    check(&Liar::default().answer_at(ANSWER + 1), &[]);
    check(&response([0xffff_0000, 0x1000], 200, [0, 0], [0, 0]), &[]);
    check(&response([4096, 0x8000_0000], 200, [0, 0], [0, 0]), &[]);
}

/// A variant that does not exist.
#[test]
fn unknown_variants_are_refused() {
    check(&answer([4096, 0], &[7]), &[]);
    check(&answer([4096, 0], &[0, 200, 0, 0, 9, 0, 0]), &[]);
}

/// Spans that do not lie inside the arena are named.
#[test]
fn spans_outside_the_arena_are_named() {
    check(&response([4096, 16], 200, [10, 7], [0, 0]), &["response.headers", "16 bytes"]);
    check(&response([4096, 16], 200, [0, 0], [0xffff_ffff, 0xffff_ffff]), &["response.body"]);
}

/// A status that is none, header lines that are none, a body of an input that a handler does not have.
#[test]
fn responses_that_are_none_are_refused() {
    check(&response([4096, 0], 99, [0, 0], [0, 0]), &["status 99"]);
    for lines in ["no colon\n", "Upper: case\n", "a: b\r\n", "a: b", ": empty\n", "a b: c\n", "a: \0\n"] {
        let len = u32::try_from(lines.len()).expect("short");
        check(&response([4096, 64], 200, [0, len], [0, 0]).bytes(4096, lines), &["header"]);
    }
    check(&answer([4096, 0], &[0, 200, 0, 0, 2, 0, 0]), &["of-input"]);
}

/// Lists of a million records, all in the same untouched memory: refused before they cost the host more than one call may.
#[test]
fn lists_that_blow_up_are_refused() {
    let many = [65_536, 1_000_000];
    let liar = graph(many, many, many, many, 0).pages(1024);
    let node = node(&liar);
    assert_eq!(node.get("hello", "/").status, 200);
    let before = node.usage();
    for _ in 0..5 {
        let reply = node.get("liar", "/");
        assert_eq!(reply.status, 500, "{}", reply.text());
    }
    let grown = node.usage().anonymous_bytes.saturating_sub(before.anonymous_bytes);
    assert!(grown < 100 << 20, "{grown} bytes more");
    assert_eq!(node.get("hello", "/").status, 200);
}

/// Lists whose records are not where such records can be.
#[test]
fn misaligned_lists_are_refused() {
    check(&graph([8193, 1], [0, 0], [0, 0], [0, 0], 0), &[]);
}

/// Graphs that are no trees: a step in a cycle, a shared child, a child or root that is not there, a step with no parent.
#[test]
fn graphs_that_are_no_trees_are_refused() {
    let (a, b, c) = ([0, 1], [1, 1], [2, 1]);
    check(&tree(&[group(0, a, [0, 1])], &[0], 0), &["a", "root"]);
    check(&tree(&[group(0, a, [0, 0]), group(0, b, [0, 1]), group(1, c, [1, 1])], &[2, 1], 0), &["cycle"]);
    check(&tree(&[group(0, a, [0, 2]), group(0, b, [0, 0])], &[1, 1], 0), &["b", "exactly one"]);
    check(&tree(&[group(0, a, [0, 1])], &[9], 0), &["child 9"]);
    check(&tree(&[group(0, a, [0, 9])], &[], 0), &["children"]);
    check(&tree(&[group(0, a, [0, 0])], &[], 7), &["root = 7"]);
    check(&tree(&[group(0, a, [0, 0]), group(0, b, [0, 0])], &[], 0), &["b", "no step's child"]);
    check(&tree(&[group(0, [0, 200], [0, 0])], &[], 0), &["id"]);
    assert_eq!(
        node(&tree(&[group(0, a, [0, 1]), group(1, b, [0, 0])], &[1], 0)).get("liar", "/").status,
        200
    );
}

/// A graph of a chain that is as deep as its list is long is refused without recursion.
#[test]
fn deep_chain_is_refused() {
    let len: u32 = 4000;
    let step = |at: u32| group(0, [at * 4, 4], [at.min(len - 2), u32::from(at < len - 1)]);
    let nodes: Vec<u32> = (0..len).flat_map(step).collect();
    let children: Vec<u32> = (1..len).collect();
    let ids: String = (0..len).map(|at| format!("{at:04}")).collect();
    let lists = [[262_144, len], [524_288, len - 1], [0, 0], [0, 0]].concat();
    let outcome = [&[1][..], &lists, &[0, 0]].concat();
    let liar = answer([589_824, len * 4], &outcome).pages(16);
    check(&liar.words(262_144, &nodes).words(524_288, &children).bytes(589_824, ids), &["64 levels"]);
}

/// What a handler prepares is looked at as closely as what it answers.
#[test]
fn prepared_results_that_are_none_are_refused() {
    let a = [0, 1];
    let step = |status, headers, body, args| tree(&[prepared(a, status, headers, body, args)], &[], 0);
    let honest = step(201, [0, 0], [0, 3], [0, 0]);
    let reply = node(&honest).get("liar", "/");
    assert_eq!((reply.status, reply.text()), (201, "abc"));
    check(&step(200, [60, 5], [0, 0], [0, 0]), &["prepared headers", "64 entries"]);
    check(&step(200, [0, 0], [0xffff_ffff, 0xffff_ffff], [0, 0]), &["prepared body"]);
    check(&step(200, [0, 0], [0, 0], [65, 0]), &["args"]);
    check(&step(99, [0, 0], [0, 0], [0, 0]), &["status 99"]);
    check(&step(200, [0, 3], [0, 0], [0, 0]), &["header"]);
}
