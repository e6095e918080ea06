//! Reading what stands in an identity's Secret, down to whether key and certificate belong
//! together. Total: any bytes at all come to a [`Content`].

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::api::names::{CA_CRT, PRIVATE_KEYS, TLS_CRT, TLS_KEY};
use crate::decide::{Content, ContentFacts};
use crate::sign::{PrivateKey, formats};
use crate::x509::{self, Sha256};

/// What a Secret's files say.
pub fn read(data: &BTreeMap<String, Zeroizing<Vec<u8>>>) -> Content {
    let is_empty = |name: &str| data.get(name).is_none_or(|bytes| bytes.is_empty());
    if PRIVATE_KEYS.iter().all(|name| is_empty(name)) && is_empty(TLS_CRT) {
        return Content::Emptied;
    }
    match try_read(data) {
        Ok(facts) => Content::Read(Box::new(facts)),
        Err(why) => Content::Unreadable(why),
    }
}

fn try_read(data: &BTreeMap<String, Zeroizing<Vec<u8>>>) -> Result<ContentFacts, String> {
    let file = |name: &str| data.get(name).ok_or_else(|| format!("{name} is missing"));
    let unreadable = |name: &'static str| {
        move |error: x509::X509Error| format!("{name} cannot be read: {error}")
    };
    let chain = x509::read_pem(file(TLS_CRT)?).map_err(unreadable(TLS_CRT))?;
    let leaf = x509::read_leaf(&chain[0]).map_err(unreadable(TLS_CRT))?;
    let key = PrivateKey::from_pem(file(TLS_KEY)?)
        .map_err(|error| format!("{TLS_KEY} cannot be read: {error}"))?;
    let (formats, strays) = formats::inspect(data, &key);
    let is_whole =
        chain.len() > 1 && chain.windows(2).all(|pair| x509::is_signed_by(&pair[0], &pair[1]));
    let issuer = is_whole.then(|| Sha256::of_chain(&chain[1..]));
    Ok(ContentFacts {
        key_matches: leaf.public_key == key.public_key(),
        leaf,
        issuer,
        bundle: data.get(CA_CRT).map(|bundle| Sha256::of(bundle)),
        formats,
        strays,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_content_is_too_odd(
            certificate in proptest::collection::vec(any::<u8>(), 0..300),
            key in ".{0,200}",
            body in "[A-Za-z0-9+/=\n]{0,400}",
        ) {
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
            for certificate in [certificate, pem.into_bytes()] {
                let data = BTreeMap::from([
                    (TLS_CRT.to_owned(), Zeroizing::new(certificate)),
                    (TLS_KEY.to_owned(), Zeroizing::new(key.clone().into_bytes())),
                ]);
                prop_assert!(matches!(read(&data), Content::Unreadable(_) | Content::Emptied));
            }
        }
    }
}
