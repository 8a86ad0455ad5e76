//! Why a request is not in a recording: the recorded one that is most like it, and where they differ.

use std::collections::HashMap;

use retake_schemas::Digest;
use serde_json::Value as Json;

/// The recorded request that is most like one that was not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// Digest of the recorded request.
    pub request: Digest,
    /// Where they differ first, as a JSON pointer (RFC 6901).
    pub path: String,
    /// How they differ there, in words. Of texts it says where and not what: a message is kept
    /// although contents are not.
    pub difference: String,
    /// Other places where they differ.
    pub others: usize,
}

impl std::fmt::Display for Nearest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the most alike that was recorded, {}, differs at {}: {}",
            self.request, self.path, self.difference
        )?;
        match self.others {
            0 => Ok(()),
            1 => f.write_str(" (and in one place more)"),
            others => write!(f, " (and in {others} places more)"),
        }
    }
}

/// The leaves of recorded requests, by path.
#[derive(Debug, Default)]
pub(super) struct Known {
    requests: Vec<(Digest, Leaves)>,
}

/// Values by path, in order of the paths.
type Leaves = std::collections::BTreeMap<String, Json>;

impl Known {
    /// Requests in the form that their digests are of. What is no JSON has one leaf.
    pub(super) fn of(texts: &HashMap<Digest, String>) -> Self {
        let mut requests: Vec<_> =
            texts.iter().map(|(digest, text)| (*digest, leaves_of(text))).collect();
        // Of several that are equally alike it is always the same one.
        requests.sort_by_key(|(digest, _)| *digest);
        Self { requests }
    }

    /// The one that differs in the fewest places.
    pub(super) fn nearest(&self, asked: &str) -> Option<Nearest> {
        let asked = leaves_of(asked);
        let (request, recorded) = self
            .requests
            .iter()
            .min_by_key(|(_, recorded)| differences(recorded, &asked).count())?;
        let mut differing = differences(recorded, &asked);
        let path = differing.next()?.to_owned();
        let difference = describe(recorded.get(&path), asked.get(&path));
        Some(Nearest { request: *request, path, difference, others: differing.count() })
    }
}

/// Paths at which two requests differ, in order.
fn differences<'a>(recorded: &'a Leaves, asked: &'a Leaves) -> impl Iterator<Item = &'a str> {
    let changed = recorded.iter().filter(|(path, value)| asked.get(*path) != Some(*value));
    let added = asked.keys().filter(|path| !recorded.contains_key(*path));
    changed.map(|(path, _)| path).chain(added).map(String::as_str)
}

fn describe(recorded: Option<&Json>, asked: Option<&Json>) -> String {
    match (recorded, asked) {
        (Some(Json::String(recorded)), Some(Json::String(asked))) => {
            let same = recorded.chars().zip(asked.chars()).take_while(|(a, b)| a == b).count();
            format!(
                "texts of {} and {} characters, the same up to character {same}",
                recorded.chars().count(),
                asked.chars().count()
            )
        }
        (Some(recorded), Some(asked)) => {
            format!("{} was recorded, {} is asked", plain(recorded), plain(asked))
        }
        (Some(recorded), None) => format!("{} was recorded, nothing is asked", plain(recorded)),
        (None, Some(asked)) => format!("nothing was recorded, {} is asked", plain(asked)),
        (None, None) => "nothing".to_owned(),
    }
}

/// A value without its content.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => format!("a text of {} characters", text.chars().count()),
        value => value.to_string(),
    }
}

fn leaves_of(text: &str) -> Leaves {
    let mut leaves = Leaves::new();
    let json = serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
    collect(&mut leaves, &mut String::new(), json);
    leaves
}

fn collect(leaves: &mut Leaves, path: &mut String, value: Json) {
    let length = path.len();
    let mut within = |leaves: &mut Leaves, name: &str, value| {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        collect(leaves, path, value);
        path.truncate(length);
    };
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            fields.into_iter().for_each(|(name, value)| within(leaves, &name, value));
        }
        Json::Array(items) if !items.is_empty() => {
            let numbered = items.into_iter().enumerate();
            numbered.for_each(|(index, value)| within(leaves, &index.to_string(), value));
        }
        leaf => {
            leaves.insert(path.clone(), leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(texts: &[&str]) -> Known {
        Known::of(
            &texts.iter().map(|text| (Digest::of(text.as_bytes()), (*text).to_owned())).collect(),
        )
    }

    /// Scenario: settings, roles and texts that differ from what was recorded.
    /// Guarantees: the request that differs least is named with the path where it does; of a text
    /// nothing is said but where it differs.
    #[test]
    fn the_path_of_a_difference_is_named() {
        let far =
            r#"{"model":"m","temperature":0.9,"messages":[{"role":"user","content":"else"}]}"#;
        let near = r#"{"model":"m","temperature":0.2,"messages":[{"role":"user","content":"secret one"}]}"#;
        let known = known(&[far, near]);
        let of = |text: &str| known.nearest(text).unwrap();
        let warmer = of(&near.replace("0.2", "0.7"));
        assert_eq!(
            (warmer.request, warmer.path.as_str()),
            (Digest::of(near.as_bytes()), "/temperature")
        );
        assert_eq!(
            (warmer.difference.as_str(), warmer.others),
            ("0.2 was recorded, 0.7 is asked", 0)
        );
        let other = of(&near.replace("secret one", "secret two"));
        assert_eq!(other.path, "/messages/0/content");
        assert_eq!(other.difference, "texts of 10 and 10 characters, the same up to character 7");
        assert!(!other.to_string().contains("secret"), "{other}");
        let more = of(&near.replace("\"m\"", "\"m\",\"seed\":4"));
        assert_eq!(
            (more.path.as_str(), more.difference.as_str()),
            ("/seed", "nothing was recorded, 4 is asked")
        );
        assert_eq!(of("no json").path, "/messages/0/content");
        assert!(Known::default().nearest("{}").is_none());
    }

    /// Scenario: names with the characters that separate a pointer's parts, and empty containers.
    #[test]
    fn paths_are_json_pointers() {
        let known = known(&[r#"{"a/b":{"c~d":1},"e":[]}"#]);
        assert_eq!(known.nearest(r#"{"a/b":{"c~d":2},"e":[]}"#).unwrap().path, "/a~1b/c~0d");
        assert_eq!(known.nearest(r#"{"a/b":{"c~d":1},"e":{}}"#).unwrap().path, "/e");
    }
}
