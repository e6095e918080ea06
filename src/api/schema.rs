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

/// The path at which something is mounted in Vault.
pub fn vault_mount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$')",
            "message": "write the path of a mount without a slash at either end, such as pki or teams/pki",
        }],
    })
}

/// The name of something in Vault: a role, an issuer.
pub fn vault_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[A-Za-z0-9_-][A-Za-z0-9._-]*$')",
            "message": "write a name as Vault has it: letters, digits, '-', '_' and '.'",
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

/// A selector of pods whose labels others write.
pub fn pod_selector(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = label_selector(generator);
    schema.insert(
        "x-kubernetes-validations".into(),
        serde_json::json!([{
            "rule": "(!has(self.matchLabels) || self.matchLabels.all(key, !key.startsWith('countersign.dev/') && !key.contains('.countersign.dev/'))) && (!has(self.matchExpressions) || self.matchExpressions.all(e, !e.key.startsWith('countersign.dev/') && !e.key.contains('.countersign.dev/')))",
            "message": "labels under countersign.dev/ follow from identities; select by labels of your own",
        }]),
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

const ROLE_RULE: &str = "self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')";
const NAMESPACE_RULE: &str = "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')";

/// The name of an AgentIdentity.
pub fn identity_name(_: &mut SchemaGenerator) -> Schema {
    text(
        63,
        "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",
        "write the name of an AgentIdentity: lower-case letters, digits, '-' and '.'",
    )
}

/// A role.
pub fn role_name(_: &mut SchemaGenerator) -> Schema {
    text(63, ROLE_RULE, ROLE_MESSAGE)
}

const ROLE_MESSAGE: &str = "write a role as AgentIdentities have it: letters, digits, '-', '_' and '.'; there are no wildcards";

/// The name of a namespace.
pub fn namespace_name(_: &mut SchemaGenerator) -> Schema {
    text(63, NAMESPACE_RULE, NAMESPACE_MESSAGE)
}

const NAMESPACE_MESSAGE: &str =
    "write the name of a namespace: lower-case letters, digits and '-'; there are no wildcards";

/// Roles.
pub fn role_names(generator: &mut SchemaGenerator) -> Schema {
    set_of(role_name(generator), 64)
}

/// Names of namespaces.
pub fn namespace_names(generator: &mut SchemaGenerator) -> Schema {
    set_of(namespace_name(generator), 64)
}

/// SPIFFE IDs of workloads.
pub fn spiffe_ids(_: &mut SchemaGenerator) -> Schema {
    let rule = "self.matches('^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+$') && !self.matches('/[.]{1,2}(/|$)')";
    set_of(
        text(
            2048,
            rule,
            "write a SPIFFE ID with a path and without wildcards, such as spiffe://partner.example.com/ns/lab/sa/planner",
        ),
        256,
    )
}

/// Names of MCP tools. The specification asks for letters, digits and a few marks, and so do we:
/// whatever an enforcer might take for a pattern is not among them.
pub fn tool_names(_: &mut SchemaGenerator) -> Schema {
    set_of(
        text(
            128,
            "self.matches('^[A-Za-z0-9._/-]+$')",
            "write the name of an MCP tool: letters, digits, '_', '-', '.' and '/'; there are no wildcards",
        ),
        128,
    )
}

/// HTTP methods.
pub fn http_methods(_: &mut SchemaGenerator) -> Schema {
    set_of(
        text(16, "self.matches('^[A-Z]+$')", "write an HTTP method in capitals, such as GET"),
        16,
    )
}

/// Paths of URLs.
pub fn http_paths(_: &mut SchemaGenerator) -> Schema {
    let rule = "self.matches('^/([A-Za-z0-9_~-][A-Za-z0-9._~-]*/)*([A-Za-z0-9_~-][A-Za-z0-9._~-]*|[*])?$')";
    set_of(
        text(
            512,
            rule,
            "write a path of letters, digits, '-', '_', '~' and '.', such as /search, or /search/* for all below it; no other wildcards, no %, no //, no segment that begins with '.'",
        ),
        32,
    )
}

/// TCP ports.
pub fn ports(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "integer",
            "format": "int32",
            "x-kubernetes-validations": [{
                "rule": "1 <= self && self <= 65535",
                "message": "write a TCP port: 1 to 65535",
            }],
        },
    })
}

fn text(longest: usize, rule: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "x-kubernetes-validations": [{"rule": rule, "message": message}],
    })
}

fn set_of(items: Schema, most: usize) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": most,
        "x-kubernetes-list-type": "set",
        "items": items,
    })
}
