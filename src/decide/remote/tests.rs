//! What a bundle may hold, as rows.

use jiff::SignedDuration;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;

const URL: &str = "https://partner.example/bundle";

fn now() -> Timestamp {
    "2026-11-25T04:00:00Z".parse().unwrap()
}

/// A certificate that ends so many days from now.
fn params(name: &str, days: i64, is_ca: bool) -> CertificateParams {
    let at = |days: i64| {
        let moment = now() + SignedDuration::from_hours(24 * days);
        OffsetDateTime::from_unix_timestamp(moment.as_second()).unwrap()
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    (params.not_before, params.not_after) = (at(-100), at(days));
    params
}

fn root(name: &str, days: i64) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    params(name, days, true).self_signed(&key).unwrap().der().clone()
}

fn leaf() -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    params("leaf", 1, false).self_signed(&key).unwrap().der().clone()
}

fn intermediate() -> CertificateDer<'static> {
    let (key, parent_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let parent = Issuer::new(params("parent", 10, true), parent_key);
    params("intermediate", 10, true).signed_by(&key, &parent).unwrap().der().clone()
}

fn pem(bundle: &[CertificateDer<'_>]) -> Result<RemoteBundle, BundleRefusal> {
    judge(x509::write_pem(bundle).as_bytes(), RemoteFormat::Pem, now())
}

fn key(purpose: &str, certificates: &[&CertificateDer<'_>]) -> Value {
    let x5c: Vec<String> = certificates.iter().map(|der| STANDARD.encode(der)).collect();
    json!({"use": purpose, "kty": "EC", "x5c": x5c})
}

fn spiffe(bundle: &Value) -> Result<RemoteBundle, BundleRefusal> {
    judge(bundle.to_string().as_bytes(), RemoteFormat::Spiffe, now())
}

fn subjects(bundle: &RemoteBundle) -> Vec<&str> {
    bundle.certificates.iter().map(|root| root.subject.as_str()).collect()
}

#[test]
fn roots_are_taken_once_and_without_those_that_have_ended() {
    let (one, two, ended) = (root("one", 10), root("two", 20), root("ended", -1));
    let bundle = pem(&[two.clone(), ended, one.clone(), two]).unwrap();
    assert_eq!(subjects(&bundle), ["CN=two", "CN=one"]);
    assert_eq!(bundle.certificates[1].certificate, x509::write_pem([&one]));
    assert_eq!(bundle.certificates[1].sha256, x509::Sha256::of(&one).to_string());
}

#[test]
fn what_is_no_bundle_of_roots_is_refused_as_a_whole() {
    let good = root("good", 10);
    let many: Vec<_> = (0..=MOST_CERTIFICATES).map(|_| good.clone()).collect();
    let rows: [(&str, &[CertificateDer<'_>], &str); 6] = [
        ("nothing", &[], "no CA certificate"),
        ("a leaf beside a root", &[good.clone(), leaf()], "certificate 2 of it is no root"),
        ("an intermediate", &[intermediate()], "is not signed with its own key"),
        ("too many", &many, "33 CA certificates, more than 32"),
        ("ended ones alone", &[root("ended", -1)], "have expired"),
        ("no certificate", &[CertificateDer::from(vec![1, 2, 3])], "is no root"),
    ];
    for (what, bundle, said) in rows {
        let refusal = pem(bundle).expect_err(what).to_string();
        assert!(refusal.contains(said), "{what}: {refusal}");
    }
    for (garbage, said) in [
        ("", "no CA certificate"),
        ("<html>", "no CA certificate"),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "PEM"),
    ] {
        let refusal = judge(garbage.as_bytes(), RemoteFormat::Pem, now()).expect_err(garbage);
        assert!(refusal.to_string().contains(said), "{garbage}: {refusal}");
    }
}

#[test]
fn of_a_spiffe_bundle_the_x509_keys_are_taken_with_its_numbers() {
    let (one, two) = (root("one", 10), root("two", 20));
    let keys = json!([key("x509-svid", &[&one]), key("jwt-svid", &[]), key("x509-svid", &[&two])]);
    let bundle = spiffe(&json!({"keys": keys, "spiffe_sequence": 7, "spiffe_refresh_hint": 60}));
    let bundle = bundle.unwrap();
    assert_eq!(subjects(&bundle), ["CN=one", "CN=two"]);
    assert_eq!((bundle.sequence, bundle.refresh_hint), (Some(7), Some(60)));
    for (what, bundle, said) in [
        ("a list", json!([]), "it is no SPIFFE bundle"),
        ("no keys", json!({}), "it is no SPIFFE bundle"),
        ("an empty one", json!({"keys": []}), "no CA certificate"),
        ("JWT keys alone", json!({"keys": [key("jwt-svid", &[])]}), "no CA certificate"),
        ("no certificate", json!({"keys": [key("x509-svid", &[])]}), "key 1 for x509-svid"),
        ("two in one", json!({"keys": [key("x509-svid", &[&one, &two])]}), "exactly one"),
        ("a leaf", json!({"keys": [key("x509-svid", &[&leaf()])]}), "is no root"),
        ("no base64", json!({"keys": [{"use": "x509-svid", "x5c": ["?"]}]}), "base64"),
    ] {
        let refusal = spiffe(&bundle).expect_err(what).to_string();
        assert!(refusal.contains(said), "{what}: {refusal}");
    }
}

#[test]
fn a_bundle_with_a_lower_number_than_the_one_that_is_held_is_old() {
    let bundle = |sequence: Option<u64>| {
        let certificates = pem(&[root("one", 10)]).unwrap().certificates;
        RemoteBundle { certificates, sequence, refresh_hint: None }
    };
    let held = record(None, Some(&bundle(Some(7))), URL, now());
    for (sequence, url, good) in [
        (Some(8), URL, true),
        (Some(7), URL, true),
        (Some(6), URL, false),
        (None, URL, true),
        (Some(1), "https://partner.example/bundle?", true),
    ] {
        let judged = succeeds(&bundle(sequence), url, held.as_ref());
        assert_eq!(judged.is_ok(), good, "{sequence:?} {url}: {judged:?}");
    }
}

#[test]
fn what_is_held_changes_with_what_it_says_and_loses_what_ends() {
    let bundle = pem(&[root("one", 10), root("two", 20)]).unwrap();
    let held = record(None, Some(&bundle), URL, now()).unwrap();
    let later = |days: i64| now() + SignedDuration::from_hours(24 * days);
    assert_eq!(record(Some(&held), Some(&bundle), URL, later(1)), Some(held.clone()));
    assert_eq!(record(Some(&held), None, URL, later(1)), Some(held.clone()));
    assert_eq!(record(None, None, URL, now()), None);
    let without = record(Some(&held), Some(&bundle), URL, later(15)).unwrap();
    assert_eq!(without.certificates, held.certificates[1..]);
    assert_eq!(record(Some(&held), None, URL, later(15)).unwrap().since, held.since);
    // Time does not empty a bundle.
    assert_eq!(record(Some(&without), Some(&bundle), URL, later(25)).unwrap(), without);
    let moved = record(Some(&held), Some(&bundle), "https://other.example/", later(1)).unwrap();
    assert_eq!(moved.since.0, later(1));
    assert_eq!(bundle_of(&held).matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn a_bundle_is_fetched_as_often_as_the_spec_or_the_bundle_asks_whichever_is_more() {
    let asked = |seconds| Some(Lifetime::from_seconds(seconds));
    for (spec, hint, seconds) in [
        (None, None, 300),
        (None, Some(60), 60),
        (None, Some(0), 300),
        (None, Some(1), 10),
        (None, Some(u64::MAX), 24 * 3600),
        (asked(600), None, 600),
        (asked(600), Some(60), 60),
        (asked(60), Some(600), 60),
    ] {
        assert_eq!(period(spec, hint).seconds(), seconds, "{spec:?} {hint:?}");
    }
}
