//! What is signed is what was ordered, and holds up before a judge that shares no code with the
//! signer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use zeroize::Zeroizing;

use super::*;
use crate::api::{AgentIdentity, CaKeyAlgorithm, ExtraFormat, KeyAlgorithm, TrustDomain};
use crate::decide::LeafProfile;
use crate::decide::slots::SlotOrder;
use crate::identity::{Domain, Lifetime};
use crate::x509::Serial;

fn now() -> Timestamp {
    "2026-11-24T12:00:00.5Z".parse().unwrap()
}

fn domain(algorithm: &str) -> Domain {
    let resource: TrustDomain = serde_json::from_value(json!({
        "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
        "spec": {
            "domain": "prod.example.com", "authority": {"selfSigned": {}},
            "ca": {"keyAlgorithm": algorithm},
        },
    }))
    .unwrap();
    Domain::parse(&resource).unwrap()
}

fn order(kind: crate::api::SlotKind, hours: u64) -> SlotOrder {
    SlotOrder {
        kind,
        number: 1,
        name: "x".to_owned(),
        life: Lifetime::from_seconds(hours * 3600),
        parent: None,
    }
}

fn authority(algorithm: &str) -> LocalAuthority {
    use crate::api::SlotKind::{Issuing, Root};
    let domain = domain(algorithm);
    let root = Slot::make(&domain, &order(Root, 100), None, now()).unwrap();
    let issuing = Slot::make(&domain, &order(Issuing, 200), Some(&root), now()).unwrap();
    assert_eq!(issuing.ca.not_after, root.ca.not_after, "an issuing CA ends with its root");
    assert_eq!(issuing.signed_by(Some(&root)), Some(root.ca.key_id.clone()));
    let bundle = x509::write_pem([&root.certificate]);
    issuing.into_authority(&root, bundle, Vec::new()).unwrap()
}

fn identity(algorithm: &str) -> Identity {
    let resource: AgentIdentity = serde_json::from_value(json!({
        "metadata": {
            "name": "planner", "namespace": "research", "uid": "u",
            "creationTimestamp": "2026-11-24T10:00:00Z",
        },
        "spec": {
            "serviceAccountName": "planner",
            "dnsNames": ["planner.research.svc"],
            "certificate": {"keyAlgorithm": algorithm},
            "delivery": {"formats": ["CombinedPEM", "PKCS12", "EnvoySDS"]},
        },
    }))
    .unwrap();
    Identity::parse(&resource).unwrap()
}

fn issue_order(authority: &LocalAuthority, identity: &Identity) -> IssueOrder {
    let id = domain("ECDSA-P256").spiffe_id(identity).unwrap();
    IssueOrder {
        reason: IssueReason::Missing,
        message: String::new(),
        profile: LeafProfile::new(
            identity,
            &id,
            &authority.chain().facts,
            Serial::derived("u", 1),
            now(),
        )
        .unwrap(),
    }
}

#[tokio::test]
async fn every_algorithm_of_leaf_and_ca_makes_a_secret_that_is_read_back_whole() {
    let leaves = ["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-2048"];
    for ca in ["ECDSA-P256", "ECDSA-P384", "RSA-3072"] {
        let authority = authority(ca);
        for algorithm in leaves {
            let identity = identity(algorithm);
            let order = issue_order(&authority, &identity);
            let key = PrivateKey::generate(identity.algorithm).unwrap();
            let prepared = sign(&authority, &identity, &order, key, now()).await.unwrap();
            let data = data(&prepared, |_, _| {});
            let key = PrivateKey::from_pem(&data["tls.key"]).unwrap();
            let chain = x509::read_pem(&data["tls.crt"]).unwrap();
            let leaf = x509::read_leaf(&chain[0]).unwrap();
            assert_eq!(leaf.public_key, key.public_key(), "{ca} {algorithm}");
            assert!(x509::is_signed_by(&chain[0], &chain[1]), "{ca} {algorithm}");
            assert_eq!(Sha256::of(&data["ca.crt"]), authority.chain().facts.bundle);
            assert_eq!(leaf, prepared.leaf);
            assert_eq!(leaf.algorithm, Some(identity.algorithm));
            let (formats, strays) = formats::inspect(&data, &key);
            assert_eq!((formats, strays), (identity.formats, BTreeSet::new()), "{ca} {algorithm}");
        }
    }
}

#[tokio::test]
async fn a_file_that_was_changed_makes_its_format_no_longer_whole() {
    let authority = authority("ECDSA-P256");
    let identity = identity("ECDSA-P256");
    let order = issue_order(&authority, &identity);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let prepared = sign(&authority, &identity, &order, key, now()).await.unwrap();
    for (name, format) in [
        ("tls-combined.pem", ExtraFormat::CombinedPem),
        ("keystore.p12", ExtraFormat::Pkcs12),
        ("keystore.password", ExtraFormat::Pkcs12),
        ("envoy-identity.yaml", ExtraFormat::EnvoySds),
        ("envoy-trust.yaml", ExtraFormat::EnvoySds),
        ("envoy-trust-crl.yaml", ExtraFormat::EnvoySds),
    ] {
        let data = data(&prepared, |file, bytes| {
            if file == name {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        });
        let key = PrivateKey::from_pem(&data["tls.key"]).unwrap();
        let (formats, strays) = formats::inspect(&data, &key);
        assert!(!formats.contains(&format), "{name}");
        assert!(strays.contains(name), "{name}");
        assert_eq!(formats.len(), 2, "{name}: the others are whole");
    }
}

/// A Secret's data as the API server would give it back, changed.
fn data(
    prepared: &Prepared,
    change: impl Fn(&str, &mut Vec<u8>),
) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
    let changed = |(name, bytes): (&str, &[u8])| {
        let mut bytes = Zeroizing::new(bytes.to_vec());
        change(name, &mut bytes);
        (name.to_owned(), bytes)
    };
    prepared.files.iter().map(changed).collect()
}

#[tokio::test]
async fn an_authority_signs_only_what_was_decided_on_itself() {
    let (authority, other) = (authority("ECDSA-P256"), authority("ECDSA-P256"));
    let identity = identity("ECDSA-P256");
    let order = issue_order(&authority, &identity);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let refused = sign(&other, &identity, &order, key, now()).await.unwrap_err();
    assert_eq!(refused, SignError::OtherAuthority);
}

#[tokio::test]
async fn what_does_not_hold_is_thrown_away() {
    let authority = authority("ECDSA-P256");
    let identity = identity("ECDSA-P256");
    let order = issue_order(&authority, &identity);
    let key = || PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    // A clock that ran on between decision and signature: the leaf would be expired already.
    let late = order.profile.not_after + SignedDuration::from_secs(1);
    let refused = sign(&authority, &identity, &order, key(), late).await.unwrap_err();
    assert!(matches!(refused, SignError::X509(_)), "{refused}");
    let good = sign(&authority, &identity, &order, key(), now()).await.unwrap();
    for change in [
        |leaf: &mut Leaf| leaf.uris.push("spiffe://other/x".to_owned()),
        |leaf: &mut Leaf| leaf.dns_names.clear(),
        |leaf: &mut Leaf| leaf.not_after += SignedDuration::from_secs(1),
        |leaf: &mut Leaf| leaf.public_key = Sha256::of(b"another"),
        |leaf: &mut Leaf| leaf.defect = Some("it must not be a CA"),
    ] {
        let mut leaf = good.leaf.clone();
        change(&mut leaf);
        assert!(judge(&leaf, &order.profile, &key(), false).is_err(), "{leaf:?}");
    }
}

#[tokio::test]
async fn a_leaf_has_the_serial_number_that_was_ordered_and_says_where_its_crl_is() {
    let authority = authority("ECDSA-P256");
    let identity = identity("ECDSA-P256");
    let mut order = issue_order(&authority, &identity);
    order.profile.crl_url = Some("http://crl.example.com/crl/aa.crl".to_owned());
    for revision in 1..50 {
        order.profile.serial = Serial::derived("u", revision);
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let prepared = sign(&authority, &identity, &order, key, now()).await.unwrap();
        assert_eq!(prepared.leaf.serial, order.profile.serial.to_string());
        let text = prepared.files.iter().find(|(name, _)| *name == "tls.crt").unwrap().1;
        let der = &x509::read_pem(text).unwrap()[0];
        let url = b"http://crl.example.com/crl/aa.crl";
        assert!(der.windows(url.len()).any(|window| window == url));
    }
}

#[test]
fn a_crl_says_what_was_ordered_and_takes_no_time() {
    use crate::api::RevocationReason;
    use crate::decide::crl::CrlOrder;
    use crate::decide::record::{Entry, EntryKey};
    let at = Timestamp::from_second(now().as_second()).unwrap();
    for algorithm in ["ECDSA-P256", "ECDSA-P384", "RSA-3072"] {
        let domain = domain(algorithm);
        let kind = crate::api::SlotKind::Issuing;
        let slot = Slot::make(&domain, &order(kind, 100), None, now()).unwrap();
        let entries = (0..10_000).map(|number| Entry {
            key: EntryKey { key_id: None, serial: Serial::derived("u", number).to_string() },
            at: at + SignedDuration::from_secs(60),
            reason: RevocationReason::KeyCompromise,
            not_after: at + SignedDuration::from_hours(1),
        });
        let crl_order = CrlOrder {
            slot: "x".to_owned(),
            key_id: slot.ca.key_id.clone(),
            number: 1_764_000_000,
            this_update: at,
            next_update: at + SignedDuration::from_hours(25),
            entries: entries.collect(),
        };
        let start = std::time::Instant::now();
        let der = crl::crl(&slot, &crl_order).unwrap();
        println!("{algorithm}: 10,000 entries, {} bytes, {:?}", der.len(), start.elapsed());
        let read = x509::read_crl(&der).unwrap();
        assert_eq!((read.number, read.key_id), (crl_order.number, slot.ca.key_id.clone()));
        assert_eq!(read.entries.len(), 10_000);
        let (date, code) = read.entries[&Serial::derived("u", 7).to_string()];
        assert_eq!((date, code), (at, 1), "no entry is younger than the list");
        let other = CrlOrder { key_id: "0a".to_owned(), ..crl_order };
        assert_eq!(crl::crl(&slot, &other), Err(SignError::OtherAuthority));
    }
}

#[test]
fn a_ca_secret_that_is_not_whole_is_refused_with_the_reason() {
    let root =
        Slot::make(&domain("ECDSA-P256"), &order(crate::api::SlotKind::Root, 1), None, now())
            .unwrap();
    let pem = x509::write_pem([&root.certificate]);
    let (_, key) = root.key.as_ref().unwrap().kept();
    let key = std::str::from_utf8(&key).unwrap();
    assert!(Slot::read(pem.as_bytes(), KeptKey::Pem(key.as_bytes())).is_ok());
    let other = PrivateKey::generate_for_ca(CaKeyAlgorithm::EcdsaP256).unwrap().to_pem();
    for (sentence, certificate, key, part) in [
        ("a foreign key", pem.as_str(), other.as_str(), "not the certificate's"),
        ("no key", pem.as_str(), "", "cannot be read"),
        ("no certificate", "", key, "no certificate"),
        ("a truncated certificate", &pem[..pem.len() / 2], key, "PEM"),
    ] {
        let said = Slot::read(certificate.as_bytes(), KeptKey::Pem(key.as_bytes()))
            .unwrap_err()
            .to_string();
        assert!(said.contains(part), "{sentence}: {said}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd_for_a_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..600, bit in 0u8..8) {
        let der = rustls_pki_types::CertificateDer::from(bytes.clone());
        let _ = (x509::read_leaf(&der), x509::read_ca(&der), x509::read_pem(&bytes));
        // And one that nearly is one.
        let root = Slot::make(&domain("ECDSA-P256"), &order(crate::api::SlotKind::Root, 1), None, now()).unwrap();
        let mut bytes = root.certificate.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let der = rustls_pki_types::CertificateDer::from(bytes);
        let _ = (x509::read_leaf(&der), x509::read_ca(&der));
        prop_assert!(!x509::is_signed_by(&der, &root.certificate) || der != root.certificate);
    }
}
