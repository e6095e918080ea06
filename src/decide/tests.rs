//! Every decision about an identity, as rows that are sentences; and the rules that must hold
//! whatever happens, over random worlds.

mod counted;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::schedule::{self, BACKDATE};
use super::*;
use crate::api::conditions::{IssueReason, Reason};
use crate::api::{
    AgentIdentity, AgentIdentityStatus, CertificateStatus, ExtraFormat, KeyAlgorithm,
};
use crate::identity::{Identity, SpiffeId, TrustDomainName};
use crate::x509::{Leaf, Serial, Sha256};

const NOW: &str = "2026-11-24T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn identity(spec: Value) -> Identity {
    let mut all = json!({"serviceAccountName": "planner"});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let resource: AgentIdentity = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity",
        "metadata": {
            "name": "planner", "namespace": "research", "uid": "u-1", "generation": 1,
            "creationTimestamp": "2026-11-24T10:00:00Z",
        },
        "spec": all,
    }))
    .unwrap();
    Identity::parse(&resource).unwrap()
}

fn spiffe_id(path: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomainName::parse("prod.example.com").unwrap(), path).unwrap()
}

fn authority() -> AuthorityFacts {
    AuthorityFacts {
        key_id: "aa".to_owned(),
        issuer: Sha256::of(b"issuer"),
        not_after: now() + SignedDuration::from_hours(1000),
        bundle: Sha256::of(b"bundle"),
        retiring: vec!["0d".to_owned()],
        signs_elsewhere: false,
    }
}

/// The serial number of the identity's nth certificate.
fn serial(revision: u64) -> Serial {
    Serial::derived("u-1", revision)
}

/// A leaf as it would have been issued `age` ago with a life of `life`.
fn leaf(age: SignedDuration, life: SignedDuration) -> Leaf {
    let issued = now() - age;
    Leaf {
        serial: serial(1).to_string(),
        fingerprint: Sha256::of(b"leaf"),
        not_before: issued - BACKDATE,
        not_after: issued + life,
        authority_key_id: "aa".to_owned(),
        uris: vec![spiffe_id("/ns/research/sa/planner").to_string()],
        dns_names: BTreeSet::new(),
        algorithm: Some(KeyAlgorithm::EcdsaP256),
        public_key: Sha256::of(b"key"),
        defect: None,
    }
}

fn facts(leaf: Leaf) -> ContentFacts {
    ContentFacts {
        leaf,
        key_matches: true,
        issuer: Some(authority().issuer),
        bundle: Some(authority().bundle),
        formats: BTreeSet::new(),
        strays: BTreeSet::new(),
    }
}

fn ours(identity: &Identity, facts: ContentFacts) -> SecretState {
    let id = spiffe_id("/ns/research/sa/planner");
    let meta = Meta::desired(identity, id.as_str(), &facts.leaf, authority().bundle);
    SecretState::Ours(Box::new(OurSecret {
        resource_version: "7".to_owned(),
        meta,
        content: Content::Read(Box::new(facts)),
    }))
}

fn admitted() -> Admission {
    Admission::Admitted { spiffe_id: spiffe_id("/ns/research/sa/planner"), authority: authority() }
}

/// A status that counts the first certificate, and no other.
fn counted() -> AgentIdentityStatus {
    let leaf = leaf(minutes(5), minutes(60));
    AgentIdentityStatus {
        revision: Some(1),
        certificate: Some(CertificateStatus {
            serial_number: leaf.serial.clone(),
            sha256_fingerprint: leaf.fingerprint.to_string(),
            not_before: leaf.not_before.into(),
            not_after: leaf.not_after.into(),
            renew_at: leaf.not_after.into(),
            authority_key_id: leaf.authority_key_id,
            revision: 1,
            reason: None,
        }),
        ..AgentIdentityStatus::default()
    }
}

fn plan(identity: &Identity, admission: &Admission, secret: &SecretState) -> Plan {
    plan_after(&counted(), &BTreeSet::new(), identity, admission, secret)
}

fn plan_after(
    previous: &AgentIdentityStatus,
    revoked: &BTreeSet<String>,
    identity: &Identity,
    admission: &Admission,
    secret: &SecretState,
) -> Plan {
    decide(&Situation {
        identity,
        admission,
        secret,
        former_secret: None,
        previous: Some(previous),
        revoked,
        crl_url: None,
        now: now(),
    })
}

/// A fresh certificate of an hour, changed.
fn changed(change: impl FnOnce(&mut ContentFacts)) -> ContentFacts {
    let mut facts = facts(leaf(minutes(5), minutes(60)));
    change(&mut facts);
    facts
}

#[test]
fn the_first_check_that_fires_is_the_reason_to_issue() {
    let plain = identity(json!({}));
    let rows: Vec<(&str, ContentFacts, Option<IssueReason>)> = vec![
        ("a fresh certificate is kept", changed(|_| {}), None),
        (
            "one whose renewal is due is replaced",
            facts(leaf(minutes(45), minutes(60))),
            Some(IssueReason::NearExpiry),
        ),
        (
            "an expired one says so",
            facts(leaf(minutes(61), minutes(60))),
            Some(IssueReason::Expired),
        ),
        (
            "a key of another certificate",
            changed(|facts| facts.key_matches = false),
            Some(IssueReason::KeyMismatch),
        ),
        (
            "a certificate that is a CA",
            changed(|facts| facts.leaf.defect = Some("it must not be a CA")),
            Some(IssueReason::WrongProfile),
        ),
        (
            "a certificate of somebody else",
            changed(|facts| facts.leaf.uris = vec!["spiffe://prod.example.com/x".to_owned()]),
            Some(IssueReason::WrongIdentity),
        ),
        (
            "DNS names that were not asked for",
            changed(|facts| facts.leaf.dns_names = BTreeSet::from(["a.b".to_owned()])),
            Some(IssueReason::SpecChanged),
        ),
        (
            "another key algorithm",
            changed(|facts| facts.leaf.algorithm = Some(KeyAlgorithm::Ed25519)),
            Some(IssueReason::SpecChanged),
        ),
        (
            "a life longer than asked for",
            facts(leaf(minutes(5), minutes(61))),
            Some(IssueReason::SpecChanged),
        ),
        (
            "a life shorter than asked for",
            facts(leaf(minutes(5), minutes(59))),
            Some(IssueReason::SpecChanged),
        ),
        (
            "another CA",
            changed(|facts| facts.issuer = Some(Sha256::of(b"other"))),
            Some(IssueReason::WrongIssuer),
        ),
        (
            "a signature that does not hold",
            changed(|facts| facts.issuer = None),
            Some(IssueReason::WrongIssuer),
        ),
        (
            "a CA that is retiring",
            changed(|facts| {
                facts.issuer = Some(Sha256::of(b"old"));
                facts.leaf.authority_key_id = "0d".to_owned();
            }),
            Some(IssueReason::AuthorityRetiring),
        ),
        (
            "a format that was not asked for",
            changed(|facts| facts.formats = BTreeSet::from([ExtraFormat::Pkcs12])),
            Some(IssueReason::WrongFormats),
        ),
        (
            "a file that nobody asked for",
            changed(|facts| facts.strays = BTreeSet::from(["x".to_owned()])),
            Some(IssueReason::WrongFormats),
        ),
        (
            "of two flaws the first is named",
            changed(|facts| {
                facts.key_matches = false;
                facts.issuer = None;
            }),
            Some(IssueReason::KeyMismatch),
        ),
    ];
    for (sentence, facts, expected) in rows {
        let plan = plan(&plain, &admitted(), &ours(&plain, facts));
        match (&plan.step, expected) {
            (Step::Issue(order), Some(reason)) => assert_eq!(order.reason, reason, "{sentence}"),
            (Step::Nothing, None) => assert!(matches!(plan.ready, Ready::Yes { .. }), "{sentence}"),
            (step, _) => panic!("{sentence}: {step:?}"),
        }
    }
    let missing = plan(&plain, &admitted(), &SecretState::Absent);
    assert!(matches!(missing.step, Step::Issue(IssueOrder { reason: IssueReason::Missing, .. })));
}

#[test]
fn who_may_not_have_a_certificate_gets_nothing_and_loses_nothing() {
    let plain = identity(json!({}));
    let good = ours(&plain, changed(|_| {}));
    let old = ours(&plain, facts(leaf(minutes(61), minutes(60))));
    let refused =
        Admission::Refused { reason: Reason::IdentityConflict, message: "an older one".to_owned() };
    let no = |reason, message: &str| Ready::No { reason, message: message.to_owned() };
    for secret in [&SecretState::Absent, &good, &old] {
        let plan = plan(&plain, &refused, secret);
        assert_eq!(plan.step, Step::Nothing);
        assert_eq!(plan.ready, no(Reason::IdentityConflict, "an older one"));
    }
    let foreign = SecretState::Foreign("not ours".to_owned());
    let plan = plan(&plain, &admitted(), &foreign);
    assert_eq!((plan.step, plan.ready), (Step::Nothing, no(Reason::SecretNotOurs, "not ours")));
}

#[test]
fn while_the_ca_cannot_sign_a_good_certificate_stands_and_nothing_is_written() {
    let plain = identity(json!({}));
    let waiting = Admission::Waiting {
        spiffe_id: Some(spiffe_id("/ns/research/sa/planner")),
        bundle: Some(authority().bundle),
        reason: Reason::AuthorityNotReady,
        message: "the CA is gone".to_owned(),
    };
    for (sentence, secret, ready) in [
        ("fresh", ours(&plain, changed(|_| {})), true),
        ("due for renewal", ours(&plain, facts(leaf(minutes(59), minutes(60)))), true),
        ("expired", ours(&plain, facts(leaf(minutes(60), minutes(60)))), false),
        ("not there", SecretState::Absent, false),
    ] {
        let plan = plan(&plain, &waiting, &secret);
        assert_eq!(plan.step, Step::Nothing, "{sentence}");
        assert_eq!(matches!(plan.ready, Ready::Yes { .. }), ready, "{sentence}");
    }
    // Whoever takes the place of the CA must come to be trusted before it can sign.
    let stale = ours(&plain, changed(|facts| facts.bundle = Some(Sha256::of(b"old"))));
    assert_eq!(plan(&plain, &waiting, &stale).step, Step::Adjust { rewrite_bundle: true });
}

#[test]
fn a_bundle_or_label_that_is_out_of_date_is_set_right_without_a_new_certificate() {
    let plain = identity(json!({}));
    let stale = ours(&plain, changed(|facts| facts.bundle = Some(Sha256::of(b"old"))));
    assert_eq!(plan(&plain, &admitted(), &stale).step, Step::Adjust { rewrite_bundle: true });
    let templated = identity(json!({"delivery": {"secretTemplate": {"labels": {"team": "a"}}}}));
    let unlabelled = ours(&plain, changed(|_| {}));
    assert_eq!(
        plan(&templated, &admitted(), &unlabelled).step,
        Step::Adjust { rewrite_bundle: false }
    );
    let labelled = ours(&templated, changed(|_| {}));
    assert_eq!(plan(&templated, &admitted(), &labelled).step, Step::Nothing);
    // The template was emptied again: what it had put there goes.
    assert_eq!(plan(&plain, &admitted(), &labelled).step, Step::Adjust { rewrite_bundle: false });
}

#[test]
fn a_ca_that_ends_too_soon_signs_nothing_and_the_identity_says_why() {
    let plain = identity(json!({}));
    let ending = |left| Admission::Admitted {
        spiffe_id: spiffe_id("/ns/research/sa/planner"),
        authority: AuthorityFacts { not_after: now() + left, ..authority() },
    };
    let Step::Issue(order) = plan(&plain, &ending(minutes(5)), &SecretState::Absent).step else {
        panic!("five minutes are enough")
    };
    assert_eq!(order.profile.not_after, now() + minutes(5));
    let late =
        plan(&plain, &ending(minutes(5) - SignedDuration::from_secs(1)), &SecretState::Absent);
    assert_eq!(late.step, Step::Nothing);
    assert!(
        matches!(&late.ready, Ready::No { reason: Reason::AuthorityExpiring, message } if message.contains("ends at")),
        "{late:?}"
    );
    // A certificate cut short by its CA is not issued again for being short.
    let cut = ours(&plain, facts(leaf(minutes(1), minutes(20))));
    let admission = ending(minutes(19));
    assert_eq!(plan(&plain, &admission, &cut).step, Step::Nothing);
}

#[test]
fn a_secret_is_ours_by_its_owner_or_by_our_label_and_our_mark() {
    let plain = identity(json!({}));
    let meta = |label: Option<&str>, owner: Option<&str>, orphan: Option<&str>| Meta {
        labels: label
            .map(|l| ("countersign.dev/identity".to_owned(), l.to_owned()))
            .into_iter()
            .collect(),
        annotations: orphan
            .map(|o| ("countersign.dev/owner-uid".to_owned(), o.to_owned()))
            .into_iter()
            .collect(),
        owner: owner.map(str::to_owned),
    };
    for (sentence, meta, is_ours) in [
        ("ours", meta(Some("planner"), Some("u-1"), None), true),
        ("ours, and to outlive us", meta(Some("planner"), None, Some("u-1")), true),
        ("an orphan of an earlier identity", meta(Some("planner"), None, Some("u-0")), true),
        ("its label was taken off", meta(None, Some("u-1"), None), true),
        ("another's label was put on", meta(Some("other"), Some("u-1"), None), true),
        ("to outlive us, and its label was taken off", meta(None, None, Some("u-1")), false),
        ("of another owner", meta(Some("planner"), Some("u-2"), None), false),
        ("of another owner with our mark", meta(Some("planner"), Some("u-2"), Some("u-1")), false),
        ("with a label that anyone could write", meta(Some("planner"), None, None), false),
        ("a stranger's", meta(None, None, None), false),
    ] {
        assert_eq!(SecretState::ownership(&plain, &meta).is_ok(), is_ours, "{sentence}");
    }
}

#[test]
fn failures_are_repeated_within_seconds_then_less_often_and_never_too_late() {
    let seconds = SignedDuration::from_secs;
    for (failures, left, expected) in [
        (1, None, 1),
        (2, None, 2),
        (4, None, 8),
        (9, None, 256),
        (10, None, 300),
        (40, None, 300),
        (10, Some(minutes(60)), 300),
        (10, Some(minutes(10)), 60),
        (10, Some(seconds(30)), 3),
        (10, Some(seconds(3)), 1),
        (10, Some(seconds(-5)), 300),
    ] {
        assert_eq!(schedule::retry_after(failures, left), seconds(expected), "{failures} {left:?}");
    }
}

fn arbitrary_life() -> impl Strategy<Value = (u64, Option<u64>)> {
    (300u64..90_000).prop_flat_map(|life| (Just(life), proptest::option::of(30..life)))
}

proptest! {
    /// Rule 1: a leaf never outlives its chain, and never lives less than the minimum.
    #[test]
    fn no_leaf_outlives_its_chain(
        (life, renew) in arbitrary_life(), chain_left in -100i64..200_000, offset in 0i64..4_000_000_000,
        nanos in 0i32..1_000_000_000,
    ) {
        let now = Timestamp::new(offset, nanos).unwrap();
        let mut certificate = json!({"duration": format!("{life}s")});
        if let Some(renew) = renew { certificate["renewBefore"] = json!(format!("{renew}s")); }
        let identity = identity(json!({"certificate": certificate}));
        let authority = AuthorityFacts {
            not_after: schedule::whole_seconds(now) + SignedDuration::from_secs(chain_left),
            ..authority()
        };
        match LeafProfile::new(&identity, &spiffe_id("/a"), &authority, serial(1), now) {
            Some(profile) => {
                prop_assert!(profile.not_after <= authority.not_after);
                prop_assert!(profile.not_after.duration_since(schedule::whole_seconds(now)) >= minutes(5));
                prop_assert!(profile.not_before <= now);
                prop_assert_eq!(profile.not_after.subsec_nanosecond(), 0);
            }
            None => prop_assert!(chain_left < 300),
        }
    }

    /// A certificate just issued is good, is not due, and becomes due before it ends, with time
    /// to spare; and the decision is the same however often it is taken.
    #[test]
    fn what_was_issued_is_kept_until_its_renewal(
        (life, renew) in arbitrary_life(), chain_left in 300i64..200_000, serial in "[0-9a-f]{32}",
    ) {
        let mut certificate = json!({"duration": format!("{life}s")});
        if let Some(renew) = renew { certificate["renewBefore"] = json!(format!("{renew}s")); }
        let identity = identity(json!({"certificate": certificate}));
        let authority = AuthorityFacts { not_after: now() + SignedDuration::from_secs(chain_left), ..authority() };
        let id = spiffe_id("/ns/research/sa/planner");
        let profile = LeafProfile::new(&identity, &id, &authority, Serial::derived("u-1", 1), now()).unwrap();
        let mut issued = leaf(SignedDuration::ZERO, minutes(60));
        issued.serial = serial;
        issued.not_before = profile.not_before;
        issued.not_after = profile.not_after;
        let renew_at = schedule::renew_at(&identity, &issued);
        prop_assert!(renew_at < issued.not_after);
        prop_assert!(renew_at > now());
        let content = Content::Read(Box::new(facts(issued)));
        let due = |at| checks::reason_to_issue(&identity, &id, &authority, Some(&content), at);
        prop_assert_eq!(due(now()), None);
        prop_assert_eq!(due(renew_at - SignedDuration::from_nanos(1)), None);
        let (reason, _) = due(renew_at).unwrap();
        prop_assert_eq!(reason, IssueReason::NearExpiry);
        prop_assert_eq!(
            checks::reason_not_ready(&identity, &id, Some(&authority), Some(&content), renew_at), None
        );
    }

    /// Renewals of certificates issued in one second are spread over a tenth of the time until.
    #[test]
    fn renewals_are_spread(serials in proptest::collection::vec("[0-9a-f]{32}", 64)) {
        let identity = identity(json!({}));
        let times: BTreeMap<Timestamp, usize> = serials.iter().fold(BTreeMap::new(), |mut times, serial| {
            let mut leaf = leaf(SignedDuration::ZERO, minutes(60));
            leaf.serial = serial.clone();
            *times.entry(schedule::renew_at(&identity, &leaf)).or_default() += 1;
            times
        });
        let (first, last) = (times.first_key_value().unwrap().0, times.last_key_value().unwrap().0);
        prop_assert!(times.len() > 16, "{} moments", times.len());
        prop_assert!(*last <= now() + minutes(40) && *first >= now() + minutes(36));
    }
}
