//! What is found, what is left alone, and what holds for every text.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use retake_schemas::redaction::{Detector, RedactRule, RedactSettings, is_redacted};

use super::*;

/// Secrets in the places they leak from: a text, and the part of it that must not be left.
const SECRETS: &[(&str, &str)] = &[
    ("key sk-proj-Ab3dEf6hIj9kLm2nOp5q here", "Ab3dEf6hIj9k"),
    ("sk-Ab3dEf6hIj9kLm2nOp5qRs8t", "Ab3dEf6hIj9k"),
    ("OPENAI_API_KEY=sk-Zz9Yy8Xx7Ww6Vv5Uu4Tt3", "Zz9Yy8"),
    ("sk-ant-api03-Qw3rTy7uIo1pAs5d", "Qw3rTy7u"),
    ("id AKIAIOSFODNN7EXAMPLE.", "IOSFODNN7"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtn"),
    ("\"SecretAccessKey\": \"wJalrXUtnFEMI/K7MDENG\"", "wJalrXUtn"),
    ("https://maps.example/api?key=AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q", "A1b2C3d4"),
    ("AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q", "A1b2C3d4"),
    ("token ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F"),
    ("gho_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F"),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrst", "ABCDEFG0"),
    ("glpat-x9Y8z7W6v5U4t3S2r1Q0", "x9Y8z7W6"),
    ("xoxb-123456789012-abcdefGHIJ", "123456789012"),
    ("https://hooks.slack.com/services/T00000000/B00000000/XyZ987", "XyZ987"),
    ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39Hq"),
    ("rk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39Hq"),
    ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "AbCdEfGh"),
    ("gsk_Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8", "Ab1Cd2Ef"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2", "SflKxwRJ"),
    ("Authorization: Bearer opaqueTokenValue42", "opaqueTokenValue42"),
    ("authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpod"),
    ("{\"authorization\": \"Bearer s3cr3tbearer\"}", "s3cr3tbearer"),
    ("Authorization: Digest username=\"u\", response=\"6629fae49393\"", "username="),
    ("curl -H 'Proxy-Authorization: Basic YWxhZGRpbjpvcGVu'", "YWxhZGRpb"),
    ("Cookie: theme=dark; sid=8f14e45fceea167a", "8f14e45f"),
    ("Set-Cookie: session=c4ca4238a0b923820dcc; Path=/; HttpOnly", "c4ca4238"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKC\n-----END RSA PRIVATE KEY----- x", "MIIEow"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXk", "b3BlbnNz"),
    ("connect postgres://app:hunter2@db.example:5432/x failed", "hunter2"),
    ("redis://:p@ssw0rd@cache:6379", "ssw0rd"),
    ("clone https://x9Y8z7W6v5U4t3S2@git.example/r.git", "x9Y8z7W6"),
    ("GET /v1/items?page=2&access_token=a1b2c3d4&x=1", "a1b2c3d4"),
    ("https://s3.example/o?X-Amz-Signature=fe5f80f77d5fa3beca038a24", "fe5f80f7"),
    ("/cb?sig=Zm9vYmFy&password=hunter2", "hunter2"),
    ("PASSWORD=correct-horse,battery&staple", "staple"),
    ("db_password: 'correct horse battery'", "battery"),
    ("{\"api_key\": \"short1\", \"x\": 1}", "short1"),
    ("{\"msg\": \"{\\\"password\\\": \\\"pa ss\\\"}\"}", "pa ss"),
    ("Config { password: Some(\"hunter2\"), port: 1 }", "hunter2"),
    ("run --api-key k3yk3yk3y --verbose", "k3yk3yk3y"),
    ("X-Api-Key: 0123456789abcdef", "0123456789"),
    ("x-auth-token => 7c6a180b36896a0a", "7c6a180b"),
    ("client_secret=8Q~fooBarBaz", "fooBarBaz"),
    ("csrf token: d41d8cd98f00b204", "d41d8cd9"),
    ("Server=db;Uid=app;Pwd=hunter2;", "hunter2"),
    ("AccountName=a;AccountKey=bXlrZXk1234567890==;", "bXlrZXk"),
    ("%3Dghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F"),
];

/// Texts of every day that look a little like secrets.
const INNOCENT: &[&str] = &[
    "gpt-4o-mini",
    "What was the keeper of Skerryvore called?",
    "max_tokens: 512, input_tokens=23, gen_ai.usage.output_tokens = 64",
    "time_to_first_token: 37.95ms, first token=12",
    "syntax error: unexpected token: identifier",
    "the basic understanding of bearer bonds",
    "use sk-learn-pipelines-and-more; the risk-adjusted-returns-of-funds",
    "https://example.org:8080/path?page=2&sort=key#top",
    "PWD=/home/user/src, monkey: banana, keyboard=de",
    "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "std::collections::HashMap, app.rag.query, 2026-11-22T07:00:00Z",
    "{\"token\": {\"type\": \"word\"}, \"secret\": {}}",
    "SELECT id, key FROM t WHERE key = 3",
    "ssh://git@localhost/owner/repo.git",
];

fn all() -> Redactor {
    let detectors = vec![
        Detector::Keys,
        Detector::Emails,
        Detector::Cards,
        Detector::Ibans,
        Detector::Phones,
        Detector::Ips,
    ];
    Redactor::new(&RedactSettings { detectors, rules: Vec::new() }).unwrap()
}

fn with_rule(name: &str, pattern: &str) -> Result<Redactor, RedactError> {
    let rule = RedactRule { name: name.to_owned(), pattern: pattern.to_owned() };
    Redactor::new(&RedactSettings { rules: vec![rule], ..RedactSettings::default() })
}

/// Scenario: keys, tokens, passwords and credentials of 48 shapes, alone and inside other text.
/// Guarantees: P1 - none survives, neither in what is not content nor in redacted content.
#[test]
fn secrets_of_all_shapes_are_taken_out() {
    let redactor = Redactor::default();
    for (text, secret) in SECRETS {
        assert!(text.contains(secret), "the table: {text}");
        for text in [(*text).to_owned(), format!("héllo\n{text}\nbye")] {
            let scrubbed = redactor.scrub(&text);
            assert!(!scrubbed.contains(secret), "{text} became {scrubbed}");
            assert!(is_redacted(&scrubbed), "{text} became {scrubbed}");
            assert!(!redactor.redact(&text).contains(secret), "{text}");
        }
    }
}

#[test]
fn what_only_looks_a_little_like_a_secret_stays() {
    let redactor = Redactor::default();
    for text in INNOCENT {
        assert!(matches!(redactor.scrub(text), Cow::Borrowed(same) if same == *text), "{text}");
        assert_eq!(redactor.redact(text), *text);
    }
}

#[test]
fn marks_say_what_was_there_and_leave_the_rest_readable() {
    let redactor = Redactor::default();
    for (text, expected) in [
        (
            "connect postgres://app:hunter2@db/x",
            "connect postgres://app:[redacted:url_password]@db/x",
        ),
        ("{\"api_key\": \"a1\", \"x\": 1}", "{\"api_key\": \"[redacted:api_key]\", \"x\": 1}"),
        ("{\\\"password\\\": \\\"a\\\"}", "{\\\"password\\\": \\\"[redacted:password]\\\"}"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [redacted:cookie]\nHost: x"),
        ("to sk-ant-api03-Qw3rTy7uIo1p!", "to [redacted:anthropic_key]!"),
        ("/x?page=2&token=abc", "/x?page=2&token=[redacted:url_secret]"),
    ] {
        assert_eq!(redactor.scrub(text), expected);
    }
}

/// Guarantees: P1 - personal data goes from content, and only as the settings say.
#[test]
fn personal_data_is_taken_out_of_content_only() {
    let text = "jane@example.org, 4111 1111 1111 1111, DE89370400440532013000, 10.0.0.1";
    let redactor = Redactor::default();
    assert_eq!(
        redactor.redact(text),
        "[redacted:email], [redacted:card], [redacted:iban], 10.0.0.1"
    );
    assert_eq!(redactor.scrub(text), text);
    let settings = RedactSettings { detectors: vec![Detector::Ips], rules: Vec::new() };
    let redacted = Redactor::new(&settings).unwrap().redact(text).into_owned();
    assert_eq!(redacted, text.replace("10.0.0.1", "[redacted:ip]"));
}

/// Scenario: attributes whose key says what the value is, and keys that only look so.
/// Guarantees: P1 - a password without any shape is taken out.
#[test]
fn values_of_secret_keys_are_taken_out_whole() {
    let redactor = Redactor::default();
    for (key, text, expected) in [
        ("db.password", "hunter2", "[redacted:password]"),
        ("http.request.header.Authorization", "opaque", "[redacted:authorization]"),
        ("http.request.header.cookie", "a=b; c=d", "[redacted:cookie]"),
        ("x-api-key", "abc", "[redacted:api_key]"),
        ("token", "a1b2c3d4", "[redacted:token]"),
        ("first_token", "37.9ms", "37.9ms"),
        ("password_file", "/run/x", "/run/x"),
        ("url", "http://u:p@h/", "http://u:[redacted:url_password]@h/"),
        ("password", "", ""),
        ("é", "x", "x"),
    ] {
        let once = redactor.scrub_attribute(key, text);
        assert_eq!(once, expected, "{key}");
        assert_eq!(redactor.scrub_attribute(key, &once), once, "{key}, twice");
    }
}

#[test]
fn own_patterns_run_on_content() {
    let redactor = with_rule("order", r"ORD-\d+").unwrap();
    assert_eq!(
        redactor.redact("see ORD-17 and ORD-18"),
        "see [redacted:order] and [redacted:order]"
    );
    let nothing = with_rule("empty", "x*").unwrap();
    assert_eq!(nothing.redact("abc"), "abc", "empty matches are none");
}

/// Guarantees: a rule that cannot be used is named, with what to do.
#[test]
fn bad_rules_are_refused_by_name() {
    for (name, pattern) in [("open", "("), ("huge", r"\p{L}{5000}"), ("back", r"(a)\1")] {
        let error = with_rule(name, pattern).unwrap_err();
        assert!(matches!(error, RedactError::Pattern { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    for name in ["", "Order", "a]b", "a b", &"x".repeat(33)] {
        assert!(matches!(with_rule(name, "x"), Err(RedactError::Name { .. })), "{name}");
    }
}

/// Scenario: a rule in Rust changes a text with and without its mark, leaves one, and panics.
/// Guarantees: P1 - a failing rule keeps the text out and the program in.
#[test]
fn rules_in_rust_run_and_fail_closed() {
    let rule = |text: &str| match text {
        "marked" => Some("a [redacted:mine] b".to_owned()),
        "changed" => Some("other".to_owned()),
        "panic" => panic!("with the text: {text}"),
        _ => None,
    };
    let redactor = Redactor::default().with("mine", rule).unwrap();
    assert_eq!(redactor.redact("marked"), "a [redacted:mine] b");
    assert_eq!(redactor.redact("changed"), "other[redacted:mine]");
    assert_eq!(redactor.redact("left"), "left");
    let failed = redactor.redact("panic").into_owned();
    assert_eq!(failed, "[redacted:mine failed]");
    assert_eq!(redactor.redact(&failed), failed);
    assert!(Redactor::default().with("No", |_| None).is_err());
}

/// Guarantees: P1 - a secret in what looks like a mark is no mark.
#[test]
fn a_secret_cannot_hide_in_a_mark() {
    let redactor = Redactor::default();
    let text = "[redacted:ghp_16C7e42F292c6912E7710c838347Ae178B4a]";
    assert_eq!(redactor.scrub(text), "[redacted:[redacted:github_token]]");
}

#[test]
fn a_pattern_that_never_settles_takes_the_text_out() {
    let redactor = with_rule("first", "^.|[a-z]\\z").unwrap();
    assert_eq!(redactor.redact("ab"), "[redacted:first][redacted:first]");
    let endless = with_rule("next", r"[a-z](?:\[|\z)").unwrap();
    assert_eq!(endless.redact(&"x".repeat(100)), "[redacted:unstable]");
}

#[test]
fn a_secret_across_the_cut_is_taken_out() {
    let redactor = Redactor::default();
    let text = format!("abc ghp_{} and more", "a1".repeat(18));
    assert_eq!(redactor.scrub_cut(&text, 8), (Cow::Borrowed("abc [red"), true));
    assert_eq!(redactor.scrub_cut("abcdef", 6), (Cow::Borrowed("abcdef"), false));
    assert_eq!(redactor.scrub_cut("é", 1), (Cow::Borrowed(""), true));
    let long = "x".repeat(100_000);
    assert_eq!(redactor.scrub_cut(&long, 10), (Cow::Borrowed("xxxxxxxxxx"), true));
}

/// Scenario: 256 KiB of what makes detectors begin and not end.
/// Guarantees: time linear in the text; a naive engine would take minutes to ages.
#[test]
fn no_text_makes_it_slow() {
    let redactor = all();
    for unit in [
        "eyJ",
        "a@",
        "-----BEGIN PRIVATE KEY-----",
        "cookie:a",
        "1 ",
        "sk-",
        "DE89 ",
        "://a:",
        "\\\"",
        "password",
        "[redacted:",
    ] {
        let text = unit.repeat((256 << 10) / unit.len());
        let start = Instant::now();
        let redacted = redactor.redact(&text);
        assert!(start.elapsed() < Duration::from_secs(20), "{unit}: {:?}", start.elapsed());
        assert!(redacted.len() < 20 << 20, "{unit}");
    }
}

/// Pieces that make texts near what the detectors look for.
fn near_secret() -> impl Strategy<Value = String> {
    let fragments: Vec<String> = SECRETS
        .iter()
        .flat_map(|(text, secret)| [(*text).to_owned(), (*secret).to_owned()])
        .chain(
            [
                "password",
                "=",
                ":",
                "\"",
                "\\\"",
                "'",
                " ",
                "\n",
                "é",
                "[redacted:jwt]",
                "[redacted:",
                "]",
                "@",
                "://",
                "-----",
                "4111 1111 1111 1111",
                "a@b.example",
            ]
            .map(str::to_owned),
        )
        .collect();
    let piece = prop_oneof![
        3 => prop::sample::select(fragments),
        1 => ".{0,6}",
        1 => "[ -~]{0,12}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Guarantees: no panic on any text, and redacting twice is redacting once.
    #[test]
    fn redacting_twice_changes_nothing_more(text in prop_oneof![near_secret(), any::<String>()]) {
        let redactor = all();
        let once = redactor.redact(&text).into_owned();
        prop_assert_eq!(redactor.redact(&once), once.as_str());
        let once = redactor.scrub(&text).into_owned();
        prop_assert_eq!(redactor.scrub(&once), once.as_str());
    }

    /// Guarantees: P1 - whatever stands before and behind, a secret of known shape goes.
    #[test]
    fn secrets_go_from_any_surroundings(
        before in "(.{0,20}[ \n])?",
        secret in prop::sample::select(SECRETS),
        after in "([ \n].{0,20})?",
    ) {
        let text = format!("{before}{}{after}", secret.0);
        let scrubbed = Redactor::default().scrub(&text).into_owned();
        let elsewhere = before.matches(secret.1).count() + after.matches(secret.1).count();
        prop_assert!(scrubbed.matches(secret.1).count() <= elsewhere, "{text} became {scrubbed}");
    }
}
