//! More services than a process can hold instances of: each answers, and those that were not asked for a while make room.

use cellmesh_tests::{Run, Wire};

/// With the kernel's default of 65,530 mappings a process has room for fewer instances than this.
const SERVICES: usize = 10_000;

#[test]
fn thousands_of_services_answer() {
    let names: Vec<String> = (0..SERVICES).map(|number| format!("\"c{number}\"")).collect();
    let toml = format!(
        "[[cell]]\ncomponent = \"{{cells}}/hello.wasm\"\nservices = [{}]\ninstances_max = 2\n",
        names.join(", ")
    );
    let node = Run::app(&toml).lanes(1).start();
    let mut wire: Wire = node.connect();
    for number in 0..SERVICES {
        assert_eq!(wire.get(&format!("c{number}"), "/").status, 200, "service c{number}");
    }
    assert!(!node.usage().takes_huge_pages, "memory that is reserved would be taken");
    // One that has made room comes back.
    assert_eq!(wire.get("c0", "/").status, 200);
}
