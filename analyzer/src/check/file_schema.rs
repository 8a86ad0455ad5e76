//! The JSON schema of budget files says what the reader reads, no more and no less.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::file::Budgets;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/budgets.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn refused(text: &str) -> String {
    Budgets::parse(text, Path::new("budgets.toml")).unwrap_err().to_string()
}

/// The names that the reader offers in place of the unknown one in `text`.
fn offered(text: &str) -> BTreeSet<String> {
    let error = refused(text);
    let (_, offered) = error.split_once(", expected").unwrap_or_else(|| panic!("{error}"));
    offered.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn texts(names: &Value) -> BTreeSet<String> {
    names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// A file whose only budget has these lines.
fn with(lines: &str) -> String {
    format!("version = 1\n[[budget]]\nname = 'a'\n{lines}\n")
}

#[test]
fn the_schema_names_the_fields_that_are_read() {
    let schema = schema();
    let definitions = &schema["definitions"];
    for (object, text) in [
        (&schema, "version = 1\nunknown = 1".to_owned()),
        (&definitions["budget"], with("unknown = 1")),
        (&definitions["slo"], with("slo = { unknown = 1 }")),
        (
            &definitions["burn"],
            with("slo = { good = 'x', target = 0.9, window = '1d', burn = [{ unknown = 1 }] }"),
        ),
    ] {
        assert_eq!(keys(&object["properties"]), offered(&text));
        assert_eq!(object["additionalProperties"], Value::Bool(false));
    }
    let severities = &definitions["budget"]["properties"]["severity"]["enum"];
    assert_eq!(texts(severities), offered(&with("severity = 'unknown'")));
}

#[test]
fn what_the_schema_requires_is_required() {
    let schema = schema();
    let definitions = &schema["definitions"];
    let line = |(name, value): &(&str, &str)| format!("{name} = {value}");
    let without = |fields: &[(&str, &str)], name: &str| -> String {
        let others: Vec<String> = fields.iter().filter(|field| field.0 != name).map(line).collect();
        others.join(", ")
    };
    let slo = [("good", "'x'"), ("target", "0.9"), ("window", "'1d'"), ("burn", "[]")];
    let burn = [("long", "'1h'"), ("short", "'5m'"), ("rate", "2")];
    for name in texts(&definitions["slo"]["required"]) {
        let text = with(&format!("slo = {{ {} }}", without(&slo, &name)));
        assert!(refused(&text).contains(&format!("missing field `{name}`")), "{text}");
    }
    for name in texts(&definitions["burn"]["required"]) {
        let entry = without(&burn, &name);
        let text = with(&format!("slo = {{ {}, burn = [{{ {entry} }}] }}", without(&slo, "burn")));
        assert!(refused(&text).contains(&format!("missing field `{name}`")), "{text}");
    }
    assert_eq!(texts(&definitions["budget"]["required"]), BTreeSet::from(["name".to_owned()]));
    assert!(
        refused("version = 1\n[[budget]]\nmetric = 'count()'").contains("missing field `name`")
    );
    assert!(refused("[[budget]]\nname = 'a'").contains("missing field `version`"));
    assert!(refused("version = 1").contains("no [[budget]]"));
    let of_file = BTreeSet::from(["budget".to_owned(), "version".to_owned()]);
    assert_eq!(texts(&schema["required"]), of_file);
    // What is not required may be left out.
    let read = Budgets::parse(
        &with(&format!("slo = {{ {} }}", without(&slo, "burn"))),
        Path::new("budgets.toml"),
    );
    assert!(read.is_ok(), "{read:?}");
}

/// Scenario: the example with a budget of every kind.
/// Guarantees: each is of exactly one of the schema's kinds, and each kind is in the example.
#[test]
fn the_example_is_of_the_kinds_of_the_schema() {
    let schema = schema();
    let kinds: Vec<BTreeSet<String>> = schema["definitions"]["budget"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| texts(&kind["required"]))
        .collect();
    let example: toml::Table = super::EXAMPLE.parse().unwrap();
    let mut seen = BTreeSet::new();
    for budget in example["budget"].as_array().unwrap() {
        let fields: BTreeSet<String> = budget.as_table().unwrap().keys().cloned().collect();
        let of: Vec<usize> =
            (0..kinds.len()).filter(|kind| kinds[*kind].is_subset(&fields)).collect();
        assert_eq!(of.len(), 1, "{budget}");
        seen.extend(of);
    }
    assert_eq!(seen.len(), kinds.len());
}
