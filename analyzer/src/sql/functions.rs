//! Scalar functions of retake.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_int64_array, as_string_array};
use datafusion::common::utils::take_function_args;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ExpressionPlacement, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A function and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionDoc {
    /// How it is called.
    pub call: &'static str,
    /// What it gives.
    pub doc: &'static str,
    /// A query that uses it.
    pub example: &'static str,
}

/// The functions beyond those of DataFusion.
pub const FUNCTIONS: &[FunctionDoc] = &[
    FunctionDoc {
        call: "attr(attributes, key)",
        doc: "Text of one attribute: the entry `key` of the JSON object `attributes`. Text comes \
              without quotes, lists and objects as JSON, NULL when there is no such entry. Of \
              `spans.attributes` only this entry is read where a segment has a column for it.",
        example: "SELECT attr(attributes, 'http.route') AS route, count(*) FROM spans GROUP BY 1",
    },
    FunctionDoc {
        call: "tokens_per_second(tokens, duration_ns)",
        doc: "Tokens per second; NULL when the duration is not above zero.",
        example: "SELECT tokens_per_second(output_tokens, duration_ns) FROM spans \
                  WHERE kind = 'llm' AND tokens_counted",
    },
];

/// The functions, ready to register.
pub(crate) fn all() -> [ScalarUDF; 2] {
    [ScalarUDF::from(Attr::new()), ScalarUDF::from(TokensPerSecond::new())]
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attr {
    signature: Signature,
}

impl Attr {
    fn new() -> Self {
        let types = vec![DataType::Utf8, DataType::Utf8];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Attr {
    fn name(&self) -> &'static str {
        "attr"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [attributes, key] = take_function_args(self.name(), args.args)?;
        // Nearly always a constant; then it is not repeated for every row.
        if let ColumnarValue::Scalar(ScalarValue::Utf8(key)) = &key {
            let attributes = attributes.into_array(rows)?;
            let found: StringArray = as_string_array(&attributes)?
                .iter()
                .map(|object| lookup(object?, key.as_deref()?))
                .collect();
            return Ok(ColumnarValue::Array(Arc::new(found)));
        }
        let (attributes, keys) = (attributes.into_array(rows)?, key.into_array(rows)?);
        let found: StringArray = as_string_array(&attributes)?
            .iter()
            .zip(as_string_array(&keys)?)
            .map(|(object, key)| lookup(object?, key?))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }

    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        match arguments {
            // A scan reads one attribute without making the others JSON.
            [ExpressionPlacement::Column, ExpressionPlacement::Literal] => {
                ExpressionPlacement::MoveTowardsLeafNodes
            }
            _ => ExpressionPlacement::KeepInPlace,
        }
    }
}

/// The text of `key` in the JSON object `object`; `None` also when it is no JSON object.
pub(crate) fn lookup(object: &str, key: &str) -> Option<String> {
    let mut json = serde_json::Deserializer::from_str(object);
    let value = Entry(key).deserialize(&mut json).ok()??.get();
    match value.as_bytes().first()? {
        b'n' => None,
        b'"' => serde_json::from_str(value).ok(),
        // As it stands there: a float that is parsed and written again may differ in a digit.
        _ => Some(value.to_owned()),
    }
}

/// Finds one entry without building the others. The last of several wins, as JSON parsers do.
struct Entry<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TokensPerSecond {
    signature: Signature,
}

impl TokensPerSecond {
    fn new() -> Self {
        let types = vec![DataType::Int64, DataType::Int64];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TokensPerSecond {
    fn name(&self) -> &'static str {
        "tokens_per_second"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [tokens, durations]: [ArrayRef; 2] = take_function_args(self.name(), arrays)?;
        let rates: Float64Array = as_int64_array(&tokens)?
            .iter()
            .zip(as_int64_array(&durations)?)
            .map(|(tokens, ns)| Some(tokens? as f64 / (ns.filter(|ns| *ns > 0)? as f64 / 1e9)))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(rates)))
    }
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn attributes_are_found_as_text() {
        let object = r#"{"a":"x","n":3,"f":1.5,"l":[1,"b"],"z":null,"k\"":true}"#;
        assert_eq!(lookup(object, "a").as_deref(), Some("x"));
        assert_eq!(lookup(object, "n").as_deref(), Some("3"));
        assert_eq!(lookup(object, "f").as_deref(), Some("1.5"));
        assert_eq!(lookup(object, "l").as_deref(), Some(r#"[1,"b"]"#));
        assert_eq!(lookup(object, "k\"").as_deref(), Some("true"));
        assert_eq!(lookup(object, "z"), None);
        assert_eq!(lookup(object, "missing"), None);
        assert_eq!(lookup("[1]", "a"), None);
        assert_eq!(lookup("{broken", "a"), None);
    }
}
