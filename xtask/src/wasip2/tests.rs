//! Which way to a compiler is taken when.

use super::*;

fn known() -> Known {
    Known {
        target_installed: false,
        source_installed: false,
        rustup: Attempt::Possible,
        packages: Attempt::Possible,
    }
}

fn failed(why: &str) -> Attempt {
    Attempt::Impossible(why.to_owned())
}

/// What is there is used; nothing is downloaded.
#[test]
fn installed_target_comes_first() {
    let known = Known { target_installed: true, source_installed: true, ..known() };
    assert_eq!(known.next(), Next::UseToolchain);
}

/// With the packages there, a machine without a network does not wait for rustup.
#[test]
fn installed_source_comes_before_a_download() {
    let known = Known { source_installed: true, ..known() };
    assert_eq!(known.next(), Next::UseSource);
}

/// rustup needs no root and changes nothing outside its own folder.
#[test]
fn rustup_comes_before_packages() {
    assert_eq!(known().next(), Next::AskRustup);
}

/// A failed way is not tried again.
#[test]
fn packages_come_after_rustup_failed() {
    let known = Known { rustup: failed("no network"), ..known() };
    assert_eq!(known.next(), Next::InstallPackages);
}

/// The last message tells what each way said.
#[test]
fn giving_up_names_every_way() {
    let known = Known { rustup: failed("no network"), packages: failed("no root"), ..known() };
    let Next::GiveUp(why) = known.next() else { panic!("{:?}", known.next()) };
    assert!(why.contains("wasm32-wasip2`: no network"), "{why}");
    assert!(why.contains("source: no root"), "{why}");
}

/// A toolchain without the linker is told apart from a missing compiler.
#[test]
fn missing_linker_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let toolchain = Toolchain {
        host: "x86_64-unknown-linux-gnu".to_owned(),
        version: Version::oldest(),
        sysroot: dir.path().to_owned(),
    };
    let error = from_source(&toolchain).unwrap_err().to_string();
    assert!(error.contains("no bin/wasm-component-ld"), "{error}");

    let bin = toolchain.rustlib().join(&toolchain.host).join("bin");
    std::fs::create_dir_all(bin.join("gcc-ld")).unwrap();
    std::fs::write(bin.join("wasm-component-ld"), "").unwrap();
    std::fs::write(bin.join("gcc-ld/wasm-ld"), "").unwrap();
    let compiler = from_source(&toolchain).unwrap();
    assert_eq!(
        compiler,
        Compiler::FromSource { linker: bin.join("wasm-component-ld"), wasm_ld_folder: bin.join("gcc-ld") }
    );
}
