//! Answers that are JSON of a given form.
//!
//! The schema goes to the service, which may or may not hold the model to it, and into the prompt.
//! What comes back is checked here in any case. A model that gets it wrong is told what is wrong,
//! once; then it is an error, never a half-right answer.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{Job, Written};
use crate::answer::ChatRequest;
use crate::answer::prompt::message;
use crate::error::PipelineError;
use crate::llm_call::{OnPart, Spent};

/// The request, with what form its answer is to have.
#[must_use]
pub fn asking_for(mut request: ChatRequest, schema: &Json) -> ChatRequest {
    if let Some(system) = request.messages.first_mut() {
        system.content.push_str(&format!(
            " Write the answer as JSON that satisfies this JSON Schema, and nothing else:\n{schema}"
        ));
    }
    // Half a document is nothing yet.
    ChatRequest { stream: false, response_schema: Some(schema.clone()), ..request }
}

/// Calls until the answer has its form, at most twice.
pub(super) async fn complete(
    job: &Job<'_>,
    mut request: ChatRequest,
    schema: &Json,
    mut spent: Spent,
    on_part: OnPart<'_>,
) -> Result<Written, PipelineError> {
    let mut is_second = false;
    loop {
        let completion = job.caller.complete(&request, job.span, &mut |_| {}).await?;
        spent.add(&completion.end);
        let reason = match read(&completion.text, schema) {
            Ok(structured) => {
                on_part(&completion.text);
                return Ok(Written {
                    text: completion.text,
                    structured: Some(structured),
                    first_piece: completion.first_piece,
                    finish_reason: completion.end.finish_reason,
                    spent,
                    passages_cut: 0,
                });
            }
            Err(reason) => reason,
        };
        if is_second {
            return Err(PipelineError::Model {
                model: request.model,
                reason: format!("its answer does not have the form that was asked for: {reason}"),
            });
        }
        is_second = true;
        request.messages.push(message("assistant", completion.text));
        request.messages.push(message(
            "user",
            format!("That was not right: {reason}. Write the JSON again, and nothing else."),
        ));
    }
}

/// Reads an answer and checks it. A fence of Markdown around it is no part of it.
///
/// # Errors
/// What is wrong and where, as text for a person and a model.
pub fn read(text: &str, schema: &Json) -> Result<Json, String> {
    let bare = unfenced(text.trim());
    let json: Json = serde_json::from_str(bare).map_err(|error| format!("not JSON: {error}"))?;
    conforms(&json, schema, "$")?;
    Ok(json)
}

/// Checks that every part of a schema is one that can be checked here: the part of JSON Schema that
/// services understand for structured output.
///
/// # Errors
/// The first keyword that is not understood. Passing over it would promise what nobody checked.
pub fn supported(schema: &Json) -> Result<(), String> {
    let Json::Object(fields) = schema else {
        return if schema.is_boolean() { Ok(()) } else { Err("must be an object".to_owned()) };
    };
    for (keyword, value) in fields {
        match keyword.as_str() {
            "properties" => {
                let properties = value.as_object().ok_or("properties: must be an object")?;
                properties.values().try_for_each(supported)?;
            }
            "items" | "additionalProperties" => supported(value)?,
            "anyOf" => {
                let choices = value.as_array().ok_or("anyOf: must be a list")?;
                choices.iter().try_for_each(supported)?;
            }
            "type" => known_types(value)?,
            name if CHECKED.contains(&name) || REMARKS.contains(&name) => {}
            other => {
                return Err(format!(
                    "{other}: cannot be checked; known are type, properties, required, items, \
                     additionalProperties, anyOf, {}",
                    CHECKED.join(", ")
                ));
            }
        }
    }
    Ok(())
}

fn known_types(value: &Json) -> Result<(), String> {
    let known = |name: &Json| name.as_str().is_some_and(|name| TYPES.contains(&name));
    let all = match value {
        Json::Array(names) => names.iter().all(known),
        name => known(name),
    };
    if all { Ok(()) } else { Err(format!("type: expected one of {}", TYPES.join(", "))) }
}

/// The text without a fence of Markdown around it.
pub(crate) fn unfenced(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("```") else { return text };
    let body = rest.split_once('\n').map_or("", |(_, body)| body);
    body.trim_end().strip_suffix("```").unwrap_or(text).trim()
}

/// Checks a value; `place` is where it stands.
fn conforms(json: &Json, schema: &Json, place: &str) -> Result<(), String> {
    let Json::Object(schema) = schema else {
        let is_allowed = schema != &Json::Bool(false);
        return if is_allowed { Ok(()) } else { Err(format!("{place}: must not be there")) };
    };
    let wrong = |reason: String| Err(format!("{place}: {reason}"));
    if let Some(types) = schema.get("type")
        && !has_type(json, types)
    {
        return wrong(format!("must be of type {types}, is {}", kind(json)));
    }
    if let Some(choices) = schema.get("enum").and_then(Json::as_array)
        && !choices.contains(json)
    {
        return wrong(format!("must be one of {}", Json::Array(choices.clone())));
    }
    if let Some(constant) = schema.get("const")
        && constant != json
    {
        return wrong(format!("must be {constant}"));
    }
    if let Some(choices) = schema.get("anyOf").and_then(Json::as_array)
        && !choices.iter().any(|choice| conforms(json, choice, place).is_ok())
    {
        return wrong("fits none of anyOf".to_owned());
    }
    within_limits(json, schema).or_else(wrong)?;
    match json {
        Json::Object(fields) => object(fields, schema, place),
        Json::Array(items) => {
            let Some(each) = schema.get("items") else { return Ok(()) };
            let mut numbered = items.iter().enumerate();
            numbered.try_for_each(|(n, item)| conforms(item, each, &format!("{place}[{n}]")))
        }
        _ => Ok(()),
    }
}

fn object(
    fields: &Map<String, Json>,
    schema: &Map<String, Json>,
    place: &str,
) -> Result<(), String> {
    let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
    let missing: BTreeSet<&str> =
        required.filter_map(Json::as_str).filter(|name| !fields.contains_key(*name)).collect();
    if let Some(name) = missing.first() {
        return Err(format!("{place}: {name:?} is missing"));
    }
    let properties = schema.get("properties").and_then(Json::as_object);
    for (name, value) in fields {
        let place = format!("{place}.{name}");
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => conforms(value, schema, &place)?,
            None => schema
                .get("additionalProperties")
                .map_or(Ok(()), |schema| conforms(value, schema, &place))?,
        }
    }
    Ok(())
}

fn within_limits(json: &Json, schema: &Map<String, Json>) -> Result<(), String> {
    let (size, unit) = match json {
        Json::String(text) => (text.chars().count() as f64, "Length"),
        Json::Array(items) => (items.len() as f64, "Items"),
        Json::Number(number) => (number.as_f64().unwrap_or(f64::NAN), "imum"),
        _ => return Ok(()),
    };
    let limit = |name: String| schema.get(&name).and_then(Json::as_f64).map(|limit| (name, limit));
    if let Some((name, least)) = limit(format!("min{unit}")).filter(|(_, least)| size < *least) {
        return Err(format!("must be at least {least} ({name}), is {size}"));
    }
    if let Some((name, most)) = limit(format!("max{unit}")).filter(|(_, most)| size > *most) {
        return Err(format!("must be at most {most} ({name}), is {size}"));
    }
    Ok(())
}

fn has_type(json: &Json, types: &Json) -> bool {
    match types {
        Json::Array(types) => types.iter().any(|one| has_type(json, one)),
        one => match one.as_str() {
            Some("integer") => json.as_f64().is_some_and(|number| number.fract() == 0.0),
            Some(name) => kind(json) == name,
            None => false,
        },
    }
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

const TYPES: &[&str] = &["null", "boolean", "number", "integer", "string", "array", "object"];
/// Keywords without schemas of their own that are checked.
const CHECKED: &[&str] = &[
    "required",
    "enum",
    "const",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
];
/// Keywords that only tell something.
const REMARKS: &[&str] =
    &["title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Json {
        json!({
            "type": "object", "required": ["name", "height"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "height": {"type": ["integer", "null"], "minimum": 0},
                "tags": {"type": "array", "items": {"enum": ["old", "tall"]}, "maxItems": 2},
                "built": {"anyOf": [{"type": "integer"}, {"const": "unknown"}]},
            },
        })
    }

    #[test]
    fn what_has_the_form_is_read() {
        for right in [
            r#"{"name": "Skerryvore", "height": 48, "tags": ["tall"], "built": 1844}"#,
            "```json\n{\"name\": \"x\", \"height\": null, \"built\": \"unknown\"}\n```",
            " {\"name\": \"x\", \"height\": 48.0} ",
        ] {
            assert!(read(right, &schema()).is_ok(), "{right}: {:?}", read(right, &schema()));
        }
        assert_eq!(supported(&schema()), Ok(()));
    }

    /// Guarantees: what is wrong is told with its place, for every keyword.
    #[test]
    fn what_has_not_is_refused_with_its_place() {
        for (text, expected) in [
            ("The tower is 48 m high.", "not JSON"),
            ("{\"name\": \"x\"", "not JSON"),
            ("[]", "$: must be of type \"object\", is array"),
            (r#"{"name": "x"}"#, "$: \"height\" is missing"),
            (r#"{"name": "", "height": 1}"#, "$.name: must be at least 1"),
            (r#"{"name": "x", "height": "48"}"#, "$.height: must be of type"),
            (r#"{"name": "x", "height": 1.5}"#, "$.height: must be of type"),
            (r#"{"name": "x", "height": -1}"#, "$.height: must be at least 0 (minimum), is -1"),
            (r#"{"name": "x", "height": 1, "z": 1}"#, "$.z: must not be there"),
            (r#"{"name": "x", "height": 1, "tags": ["old", "new"]}"#, "$.tags[1]: must be one of"),
            (r#"{"name": "x", "height": 1, "tags": ["old", "old", "old"]}"#, "(maxItems)"),
            (r#"{"name": "x", "height": 1, "built": "then"}"#, "$.built: fits none of anyOf"),
        ] {
            let error = read(text, &schema()).expect_err(text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_keyword_that_nobody_checks_is_refused() {
        for (schema, expected) in [
            (json!({"type": "object", "properties": {"a": {"pattern": "^x"}}}), "pattern"),
            (json!({"items": {"$ref": "#/x"}}), "$ref"),
            (json!({"type": "text"}), "expected one of null"),
            (json!({"anyOf": [{"oneOf": []}]}), "oneOf"),
            (json!(7), "must be an object"),
        ] {
            assert!(supported(&schema).expect_err("refused").contains(expected), "{schema}");
        }
    }
}
