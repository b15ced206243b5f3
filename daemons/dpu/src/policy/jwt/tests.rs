use proptest::prelude::*;
use serde_json::json;

use super::*;

fn token(name: &str) -> String {
    let tokens: Map<String, Value> =
        serde_json::from_str(include_str!("testdata/tokens.json")).expect("JSON");
    tokens[name].as_str().expect("a text").to_owned()
}

fn rule(path: &str, claim: &str, value: &str) -> ClaimRule {
    ClaimRule { path: path.to_owned(), claim: claim.to_owned(), values: vec![value.to_owned()] }
}

fn policy() -> JwtPolicy {
    JwtPolicy {
        jwks: PathBuf::new(),
        issuer: Some("https://issuer.example".to_owned()),
        audience: vec!["shop".to_owned()],
        leeway: TimeSpan::secs(60),
        public: vec!["/open".to_owned(), "/admin/open".to_owned()],
        rules: vec![rule("/admin", "role", "admin")],
        keys: Keys::from_jwks(include_str!("testdata/jwks.json")).expect("keys"),
    }
}

fn ask(path: &str, authorization: &str) -> Result<(), TokenError> {
    let lines = format!("host: s1\nauthorization: {authorization}\n");
    Gate::new(&policy()).admit(path.as_bytes(), HeaderLines(lines.as_bytes()))
}

/// A token of each kind of key opens the door, also one that names no key.
#[test]
fn good_tokens_are_taken() {
    for name in ["ed", "rsa", "ec", "no-kid", "many-roles"] {
        assert_eq!(ask("/", &format!("Bearer {}", token(name))), Ok(()), "{name}");
    }
    assert_eq!(ask("/", &format!("bEARER  {}", token("ed"))), Ok(()));
}

/// Whatever is wrong with a token, it is refused, with what is wrong.
#[test]
fn bad_tokens_are_told_apart() {
    for (name, why) in [
        ("expired", "it has expired"),
        ("no-exp", "it has no claim exp"),
        ("not-yet", "it is not valid yet"),
        ("issuer", "it is of another issuer"),
        ("no-issuer", "it has no claim iss"),
        ("audience", "it is for another audience"),
        ("no-audience", "it has no claim aud"),
        ("foreign-key", "its signature does not fit"),
        ("wrong-kid", "no key fits its algorithm and key id"),
        ("unknown-kid", "no key fits its algorithm and key id"),
        ("none", "it is no token that can be read"),
        ("hmac-of-public-key", "no key fits its algorithm and key id"),
        ("other-algorithm", "no key fits its algorithm and key id"),
        ("critical", "it has extensions that must be understood"),
    ] {
        let expected = Err(TokenError::Invalid(why.to_owned()));
        assert_eq!(ask("/", &format!("Bearer {}", token(name))), expected, "{name}");
    }
    for missing in ["", "Basic YTpi", "Bearer"] {
        assert_eq!(ask("/", missing), Err(TokenError::Missing), "{missing:?}");
    }
    let none = Gate::new(&policy()).admit(b"/", HeaderLines(b"host: s1\n"));
    assert_eq!(none, Err(TokenError::Missing));
    let two = format!("Bearer {0}\nauthorization: Bearer {0}", token("ed"));
    assert!(matches!(ask("/", &two), Err(TokenError::Invalid(_))));
}

/// The signature of a token is looked at once until it expires, what it may ask for each time; one that was refused is looked at
/// again.
#[test]
fn good_tokens_are_remembered() {
    const EXPIRES: u64 = 4_102_444_800;
    let rules = vec![rule("/admin", "role", "admin"), rule("/root", "role", "root")];
    let mut gate = Gate::new(&JwtPolicy { rules, ..policy() });
    let ask = |gate: &Gate, path: &str, name: &str, now| {
        let lines = format!("authorization: Bearer {}\n", token(name));
        gate.admit_at(path.as_bytes(), HeaderLines(lines.as_bytes()), now)
    };
    let now = EXPIRES - 1000;
    assert_eq!([ask(&gate, "/", "ed", now), ask(&gate, "/admin", "admin", now)], [Ok(()), Ok(())]);
    assert!(ask(&gate, "/", "expired", now).is_err());
    gate.keys = Keys::default();
    let no_key = || Err(TokenError::Invalid("no key fits its algorithm and key id".to_owned()));
    for now in [now, EXPIRES, EXPIRES + 59] {
        assert_eq!([ask(&gate, "/", "ed", now), ask(&gate, "/admin", "admin", now)], [Ok(()), Ok(())]);
        for (path, name) in [("/admin", "ed"), ("/root", "ed"), ("/root", "admin")] {
            let asked = ask(&gate, path, name, now);
            assert_eq!(asked, Err(TokenError::Claim { claim: "role".to_owned() }), "{path} {name}");
        }
        assert_eq!([ask(&gate, "/", "ec", now), ask(&gate, "/", "expired", now)], [no_key(), no_key()]);
    }
    assert_eq!(
        [ask(&gate, "/", "ed", EXPIRES + 60), ask(&gate, "/", "admin", now - 1)],
        [no_key(), no_key()]
    );
}

/// A path that a rule covers asks for the claim; others do not.
#[test]
fn rules_ask_for_claims() {
    let user = format!("Bearer {}", token("ed"));
    for path in ["/admin", "/admin/x?y", "/x/..%2fadmin", "/admin/open"] {
        assert_eq!(ask(path, &user), Err(TokenError::Claim { claim: "role".to_owned() }), "{path}");
        for name in ["admin", "many-roles"] {
            assert_eq!(ask(path, &format!("Bearer {}", token(name))), Ok(()), "{path}");
        }
        assert_eq!(ask(path, ""), Err(TokenError::Missing), "{path}");
    }
    assert_eq!(ask("/administrator", &user), Ok(()));
}

/// What is public needs no token, and does not mind a bad one.
#[test]
fn public_paths_need_no_token() {
    for path in ["/open", "/open/x?y"] {
        assert_eq!(ask(path, ""), Ok(()), "{path}");
        assert_eq!(ask(path, "Bearer x"), Ok(()), "{path}");
    }
    for path in ["/open/../x", "/opened", "/open/%2e%2e/admin"] {
        assert_eq!(ask(path, ""), Err(TokenError::Missing), "{path}");
    }
}

/// Claims are texts, lists of them, words of a scope, or inside of others.
#[test]
fn claims_are_found_where_they_are() {
    let claims = json!({
        "role": "admin", "roles": ["user", "admin", 7], "scope": "read write", "words": "read write", "level": 7,
        "realm": { "roles": ["admin"] }, "x/y": "admin", "https://x/roles": { "a/b": "admin" },
    });
    let claims = claims.as_object().expect("an object");
    let is_kept = |claim: &str, value: &str| Rule::new(&rule("/", claim, value)).is_kept(claims);
    for (claim, value) in [
        ("role", "admin"),
        ("roles", "admin"),
        ("scope", "write"),
        ("words", "read write"),
        ("/realm/roles", "admin"),
        ("/realm/roles/0", "admin"),
        ("/https:~1~1x~1roles/a~1b", "admin"),
        ("/role", "admin"),
        ("/x~1y", "admin"),
    ] {
        assert!(is_kept(claim, value), "{claim}");
    }
    for (claim, value) in [
        ("role", "user"),
        ("roles", "7"),
        ("words", "read"),
        ("scope", "read write"),
        ("level", "7"),
        ("realm", "admin"),
        ("/realm/rolls", "admin"),
        ("missing", "admin"),
        ("/", ""),
        ("/role/", "admin"),
    ] {
        assert!(!is_kept(claim, value), "{claim}");
    }
}

/// What could never fit, or never be kept, is refused.
#[test]
fn policies_are_checked() {
    let problems = |policy: JwtPolicy| {
        let mut problems = Problems::default();
        policy.check(&mut problems);
        problems.found.len()
    };
    assert_eq!(problems(policy()), 0);
    assert_eq!(problems(JwtPolicy { rules: vec![rule("/a/", "role", "x")], ..policy() }), 1);
    assert_eq!(problems(JwtPolicy { rules: vec![rule("/a", "", "x")], ..policy() }), 1);
    let no_values = ClaimRule { values: Vec::new(), ..rule("/a", "role", "x") };
    assert_eq!(problems(JwtPolicy { rules: vec![no_values], ..policy() }), 1);
    assert_eq!(problems(JwtPolicy { public: vec!["open".to_owned()], ..policy() }), 1);
    assert_eq!(problems(JwtPolicy { rules: vec![rule("/a", "role", "x"); 63], ..policy() }), 1);
    for leeway in [TimeSpan::millis(1500), TimeSpan::secs(3601)] {
        assert_eq!(problems(JwtPolicy { leeway, ..policy() }), 1);
    }
}

proptest! {
    /// A token with any bit turned is no token, and no bytes whatever panic.
    #[test]
    fn changed_tokens_are_refused(
        place in any::<prop::sample::Index>(),
        byte in 33u8..127,
        which in 0usize..3,
    ) {
        let mut changed = token(["ed", "rsa", "ec"][which]).into_bytes();
        let place = place.index(changed.len());
        // The last character of a part has bits that nobody reads.
        let is_last = changed.get(place + 1).is_none_or(|next| *next == b'.');
        prop_assume!(!is_last && changed[place] != byte);
        changed[place] = byte;
        let changed = String::from_utf8(changed).expect("ASCII");
        let answer = ask("/", &format!("Bearer {changed}"));
        prop_assert!(answer.is_err());
    }

    /// Neither does anything else that a client may send.
    #[test]
    fn rubbish_is_refused(target in "\\PC{0,40}", token in "[!-~]{0,60}(\\.[!-~]{0,60}){0,4}") {
        let target = format!("/{target}");
        let answer = ask(&target, &format!("Bearer {token}"));
        prop_assert!(answer.is_err() || target.starts_with("/open"));
    }
}
