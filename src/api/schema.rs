//! Pieces of schema that several fields share: durations and selectors.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A duration in whole hours, minutes and seconds, as CEL and Go read it: `1h`, `90m`, `1h30m`.
///
/// Sixteen characters hold a hundred million hours; the bound lets the API server price the rule.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]{1,7}h)?([0-9]{1,7}m)?([0-9]{1,7}s)?$')",
            "message": "write a duration in whole hours, minutes and seconds, such as 1h, 90m or 1h30m",
        }],
    })
}

/// A set of strings: the API server refuses one that is given twice.
pub fn dns_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$')",
                "message": "write a DNS name in lower case without wildcard or trailing dot, such as planner.research.svc",
            }],
        },
    })
}

/// Suffixes under which DNS names are allowed beyond the namespace's own Services.
pub fn dns_suffixes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$')",
                "message": "write a DNS suffix in lower case without a leading dot, such as agents.example.com",
            }],
        },
    })
}

/// Subject key ids in lower-case hexadecimal.
pub fn key_ids(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([0-9a-f]{2})+$')",
                "message": "write a key id as status.slots has it: hexadecimal digits in lower case",
            }],
        },
    })
}

/// The name of a Secret that somebody else puts into the operator's namespace.
pub fn authority_secret(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",
            "message": "write a Secret's name: lower-case letters, digits, '-' and '.', such as corporate-ca",
        }, {
            "rule": "!self.startsWith('countersign-ca-')",
            "message": "Secrets whose names begin with countersign-ca- are the operator's own: choose another name",
        }],
    })
}

/// Labels or annotations a user adds to the Secret; ours are not among them.
pub fn template_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [{
            "rule": "self.all(key, size(key) <= 316 && !key.startsWith('countersign.dev/') && !key.contains('.countersign.dev/'))",
            "message": "keys under countersign.dev/ are written by the operator alone; choose a prefix of your own",
        }, {
            "rule": "self.all(key, key.matches('^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$'))",
            "message": "a key is a name of at most 63 letters, digits, '-', '_' and '.', which a DNS domain and '/' may precede, such as example.com/team",
        }],
    })
}

/// Like [`template_map`], with values short enough for a label.
pub fn template_labels(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = template_map(generator);
    schema.insert(
        "additionalProperties".into(),
        serde_json::json!({
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$')",
                "message": "a label's value is at most 63 letters, digits, '-', '_' and '.', and starts and ends with a letter or digit",
            }],
        }),
    );
    schema
}

/// A Kubernetes label selector with every part bounded.
pub fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "minLength": 1, "maxLength": 316},
                        "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
                        "message": "In and NotIn take at least one value; Exists and DoesNotExist take none",
                    }],
                },
            },
        },
    })
}

/// Conditions, merged by type as the Kubernetes API conventions ask.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    let items = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": items,
    })
}
