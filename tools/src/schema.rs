//! What a tool takes, as a JSON Schema: for models, which read nothing else.

use serde_json::{Map, Value, json};
use toka_kernel::tool::{Items, ParamSpec, ParamType, ToolSpec};

/// The schema of the arguments of a tool (JSON Schema 2020-12, an object). It says what [`crate::prepare`] checks, in the
/// words that a model knows; the check itself decides.
pub fn input_schema(spec: &ToolSpec) -> Value {
    schema_of(&spec.params)
}

/// The same for parameters that belong to no tool; [`crate::check_members`] checks them.
pub fn schema_of(params: &[ParamSpec]) -> Value {
    let properties: Map<String, Value> = params.iter().map(|param| (param.name.clone(), property(param))).collect();
    let required: Vec<&str> = params.iter().filter(|param| param.required).map(|param| param.name.as_str()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(param: &ParamSpec) -> Value {
    let own = Items {
        kind: param.kind,
        min: param.min,
        max: param.max,
        max_len: param.max_len,
        values: param.values.clone(),
    };
    let mut schema = match (ParamType::from_number(param.kind), &param.items) {
        (Some(ParamType::Array), Some(items)) => {
            let mut schema = Map::new();
            schema.insert("type".to_owned(), json!("array"));
            schema.insert("items".to_owned(), Value::Object(scalar(items)));
            put(&mut schema, "maxItems", param.max_len.map(Value::from));
            schema
        }
        (_, _) => scalar(&own),
    };
    let mut description = param.description.clone();
    match ParamType::from_number(param.kind) {
        Some(ParamType::Path) => append(&mut description, "A path written `root:relative/path`."),
        Some(ParamType::Host) => append(&mut description, "A host name or address."),
        Some(
            ParamType::String
            | ParamType::Integer
            | ParamType::Boolean
            | ParamType::Enum
            | ParamType::Array
            | ParamType::Json,
        )
        | None => {}
    }
    put(&mut schema, "description", (!description.is_empty()).then_some(Value::String(description)));
    put(&mut schema, "default", param.default.as_deref().and_then(|text| serde_json::from_str(text).ok()));
    Value::Object(schema)
}

fn scalar(of: &Items) -> Map<String, Value> {
    let mut schema = Map::new();
    let kind = match ParamType::from_number(of.kind) {
        Some(ParamType::Integer) => Some("integer"),
        Some(ParamType::Boolean) => Some("boolean"),
        Some(ParamType::Array) => Some("array"),
        Some(ParamType::String | ParamType::Enum | ParamType::Path | ParamType::Host) => Some("string"),
        Some(ParamType::Json) | None => None,
    };
    put(&mut schema, "type", kind.map(Value::from));
    put(&mut schema, "minimum", of.min.map(Value::from));
    put(&mut schema, "maximum", of.max.map(Value::from));
    // The bound counts bytes, and no character is less than one.
    put(&mut schema, "maxLength", of.max_len.map(Value::from));
    put(&mut schema, "enum", (!of.values.is_empty()).then(|| json!(of.values)));
    schema
}

fn put(schema: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        schema.insert(name.to_owned(), value);
    }
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_of_this_program_says_what_it_takes() {
        for tool in crate::registry() {
            let schema = input_schema(tool.spec());
            let properties = schema["properties"].as_object().expect("an object");
            assert_eq!(properties.len(), tool.spec().params.len(), "{}", tool.spec().name);
            for param in &tool.spec().params {
                let required = schema["required"].as_array().expect("a list").iter().any(|name| *name == param.name);
                assert_eq!(required, param.required, "{}.{}", tool.spec().name, param.name);
            }
        }
    }

    #[test]
    fn a_path_says_how_it_is_written() {
        let reader = crate::registry().into_iter().find(|tool| tool.spec().name == "file-reader").expect("it is there");
        let schema = input_schema(reader.spec());
        assert_eq!(schema["properties"]["path"]["type"], "string");
        let said = schema["properties"]["path"]["description"].as_str().expect("text");
        assert!(said.contains("`root:relative/path`"), "{said}");
        assert_eq!(schema["properties"]["encoding"]["enum"], json!(["auto", "utf8", "base64"]));
    }
}
