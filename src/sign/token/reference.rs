//! Where a key is: what a CA's Secret keeps in place of the key, a PKCS#11 URI (RFC 7512).

use std::fmt::{self, Write};
use std::path::PathBuf;

use super::KeyId;
use crate::identity::TokenAddress;

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    /// The token, and the module through which the key was made.
    pub token: TokenAddress,
    /// The key's name, for people.
    pub name: String,
    pub id: KeyId,
}

/// Why a text is no reference to a key of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("it is no PKCS#11 URI")]
    NotUri,
    #[error("its {0} is missing or cannot be read")]
    Part(&'static str),
}

impl KeyReference {
    /// Reads what [`fmt::Display`] writes.
    pub fn read(text: &str) -> Result<Self, ReferenceError> {
        let rest = text.trim().strip_prefix("pkcs11:").ok_or(ReferenceError::NotUri)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let part = |of: &str, between: char, name: &'static str| {
            of.split(between)
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| unescape(value))
                .ok_or(ReferenceError::Part(name))
        };
        let text =
            |bytes: Vec<u8>, name| String::from_utf8(bytes).map_err(|_| ReferenceError::Part(name));
        let source = text(part(query, '&', "pin-source")?, "pin-source")?;
        let pin = source.split_once('/').ok_or(ReferenceError::Part("pin-source"))?;
        Ok(KeyReference {
            token: TokenAddress {
                module: PathBuf::from(text(part(query, '&', "module-path")?, "module-path")?),
                label: text(part(path, ';', "token")?, "token")?,
                pin_secret: pin.0.to_owned(),
                pin_key: pin.1.to_owned(),
            },
            name: text(part(path, ';', "object")?, "object")?,
            id: KeyId::from_bytes(&part(path, ';', "id")?).ok_or(ReferenceError::Part("id"))?,
        })
    }
}

impl fmt::Display for KeyReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TokenAddress { module, label, pin_secret, pin_key } = &self.token;
        write!(
            f,
            "pkcs11:token={};object={};id={};type=private?module-path={}&pin-source={}",
            escape(label.as_bytes()),
            escape(self.name.as_bytes()),
            self.id.0.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "%{byte:02x}");
                text
            }),
            escape(module.to_string_lossy().as_bytes()),
            escape(format!("{pin_secret}/{pin_key}").as_bytes()),
        )
    }
}

/// Everything but unreserved characters and the slash as %xx (RFC 3986, 2.1).
fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02x}");
            }
        }
        text
    })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(token: &str, name: &str) -> KeyReference {
        KeyReference {
            token: TokenAddress {
                module: PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"),
                label: token.to_owned(),
                pin_secret: "hsm-pin".to_owned(),
                pin_key: "pin".to_owned(),
            },
            name: name.to_owned(),
            id: KeyId::of("uid", name),
        }
    }

    #[test]
    fn a_reference_is_a_pkcs11_uri() {
        let text = reference("Corporate HSM", "countersign-ca-prod-root-1").to_string();
        assert!(
            text.starts_with("pkcs11:token=Corporate%20HSM;object=countersign-ca-prod-root-1;id=%"),
            "{text}"
        );
        let query = "?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=hsm-pin/pin";
        assert!(text.ends_with(query), "{text}");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let good = reference("a", "b").to_string();
        for (text, error) in [
            ("".to_owned(), ReferenceError::NotUri),
            ("-----BEGIN PRIVATE KEY-----".to_owned(), ReferenceError::NotUri),
            (good.replace("token=", "tokens="), ReferenceError::Part("token")),
            (good.replace("id=%", "id=%0"), ReferenceError::Part("id")),
            (good.replace("hsm-pin/pin", "hsm-pin"), ReferenceError::Part("pin-source")),
            (good.replace("token=a", "token=%ff"), ReferenceError::Part("token")),
        ] {
            assert_eq!(KeyReference::read(&text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_reference_is_read_back(token in "\\PC{1,32}", name in "[a-z0-9-]{1,63}") {
            let given = reference(&token, &name);
            prop_assert_eq!(KeyReference::read(&given.to_string()), Ok(given));
        }
    }
}
