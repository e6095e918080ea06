//! What is asked for, what is said before, and what is shown while it happens.

use std::time::Duration;

use serde_json::json;

use super::emergency::{struck, victims, warning};
use super::progress::{Agents, Goal, progress};
use super::request::{Wish, normal_key_id, request};
use super::screen::{countdown, news};
use crate::api::conditions::{READY, ROTATING};
use crate::api::{
    AgentIdentity, AgentIdentityStatus, CertificateStatus, SlotKind, SlotNumbers, SlotPhase,
    TrustDomain,
};
use crate::cli::words::tests::{
    after, issuing, now, preparing, prod, quiet, reached, retiring, root, with,
};
use crate::cli::words::{NextStep, WIDTH};

fn key(kind: &str, number: u32) -> String {
    format!("{kind}{number:038}")
}

fn asked(mut domain: TrustDomain, root: Option<u32>, issuing: Option<u32>) -> TrustDomain {
    domain.spec.ca.at_least = Some(SlotNumbers { root, issuing });
    domain
}

#[test]
fn a_rotation_is_asked_for_by_the_number_after_the_active_one() {
    let newer = |kind, number| Goal::Newer { kind, number };
    let change = |ca| Some(json!({"metadata": {"resourceVersion": "7"}, "spec": {"ca": ca}}));
    for (case, domain, wish, goal, expected) in [
        (
            "root",
            quiet(),
            Wish::Root,
            newer(SlotKind::Root, 2),
            change(json!({"atLeast": {"root": 2}})),
        ),
        (
            "issuing",
            quiet(),
            Wish::Issuing,
            newer(SlotKind::Issuing, 2),
            change(json!({"atLeast": {"issuing": 2}})),
        ),
        (
            "what was asked for earlier is done",
            asked(retiring(), Some(2), None),
            Wish::Root,
            newer(SlotKind::Root, 3),
            change(json!({"atLeast": {"root": 3}})),
        ),
        (
            "asked for, and not begun",
            asked(quiet(), Some(5), None),
            Wish::Root,
            newer(SlotKind::Root, 5),
            None,
        ),
        (
            "the operator itself has begun",
            preparing(None),
            Wish::Root,
            newer(SlotKind::Root, 2),
            None,
        ),
        (
            "a new root brings a new issuing CA",
            preparing(None),
            Wish::Issuing,
            newer(SlotKind::Root, 2),
            None,
        ),
    ] {
        let request = request(&domain, &wish).expect(case);
        assert_eq!((&request.goal, &request.change), (&goal, &expected), "{case}");
        assert!(request.say.starts_with("prod: "), "{case}: {}", request.say);
        assert_eq!(request.change.is_none(), request.say.contains("under way"), "{case}");
    }
}

#[test]
fn what_cannot_be_rotated_is_a_sentence() {
    let blocked = with(prod(Vec::new()), READY, false, "DuplicateDomain");
    assert_eq!(
        request(&blocked, &Wish::Root),
        Err("prod has no CA that could be rotated: the message of DuplicateDomain".to_owned())
    );
    let unknown = request(&quiet(), &Wish::Distrust("ee".into())).unwrap_err();
    assert_eq!(
        unknown,
        "prod has no CA with the key id \"ee\": `countersign trust prod` shows those it has"
    );
    let mut gone = quiet();
    gone.spec.ca.distrust = vec!["ee".to_owned()];
    let gone = request(&gone, &Wish::Distrust("ee".into())).unwrap_err();
    assert!(gone.contains("is distrusted already"), "{gone}");
}

#[test]
fn a_distrusted_key_id_joins_those_that_are() {
    let mut domain = quiet();
    domain.spec.ca.distrust = vec!["ee".to_owned()];
    let wish = Wish::Distrust(key("bb", 1));
    let request_of = |domain: &TrustDomain| request(domain, &wish).unwrap();
    let request = request_of(&domain);
    assert_eq!(
        request.change,
        Some(json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"ca": {"distrust": ["ee", key("bb", 1)]}},
        }))
    );
    assert_eq!(request.goal, Goal::Distrusted(vec![key("aa", 1), key("bb", 1)]));
    domain.spec.ca.distrust.push(key("bb", 1));
    assert_eq!(request_of(&domain).change, None);
}

#[test]
fn a_key_id_may_be_written_as_openssl_prints_it() {
    assert_eq!(normal_key_id(" 4F:3A:0b "), "4f3a0b");
}

#[test]
fn a_root_goes_with_what_it_signed_and_an_issuing_ca_with_its_root() {
    let names = |domain: &TrustDomain, key_id: &str| {
        let slots = &domain.status.as_ref().unwrap().slots;
        struck(slots, key_id).iter().map(|slot| slot.key_id.clone()).collect::<Vec<_>>()
    };
    let domain = retiring();
    assert_eq!(names(&domain, &key("aa", 1)), [key("aa", 1), key("bb", 1)]);
    assert_eq!(names(&domain, &key("bb", 2)), [key("aa", 2), key("bb", 2)]);
    assert_eq!(names(&domain, "ee"), [""; 0]);
    assert_eq!(names(&preparing(None), &key("bb", 2)), [key("bb", 2)]);
    assert_eq!(names(&preparing(None), &key("aa", 2)), [key("aa", 2), key("bb", 2)]);
}

fn agent(namespace: &str, domain: &str, authority: &str, ends: i64) -> AgentIdentity {
    let mut identity = AgentIdentity::new("planner", Default::default());
    identity.metadata.namespace = Some(namespace.to_owned());
    identity.status = Some(AgentIdentityStatus {
        trust_domain: Some(domain.to_owned()),
        certificate: Some(CertificateStatus {
            serial_number: "01".into(),
            sha256_fingerprint: "02".into(),
            not_before: now().into(),
            not_after: after(ends).into(),
            renew_at: after(ends).into(),
            authority_key_id: authority.to_owned(),
            revision: 1,
            reason: None,
        }),
        ..Default::default()
    });
    identity
}

#[test]
fn the_agents_that_are_cut_off_are_counted() {
    let one = key("bb", 1);
    let all = [
        agent("research", "prod", &one, 60),
        agent("research", "prod", &one, 60),
        agent("billing", "prod", &one, 60),
        agent("other-domain", "test", &one, 60),
        agent("other-ca", "prod", &key("bb", 2), 60),
        agent("expired", "prod", &one, -1),
        AgentIdentity::new("without", Default::default()),
    ];
    let struck = [key("aa", 1), one];
    assert_eq!(victims("prod", &struck, &all, now()).len(), 3);
    let text = warning(&quiet(), &struck, &all, now());
    assert!(text.starts_with("prod: this distrusts root 1 and issuing 1, at once"), "{text}");
    assert!(text.contains("  Breaks      3 agents have certificates under it."), "{text}");
    assert!(text.contains("  Where       research 2, billing 1\n"), "{text}");
    assert!(text.contains("makes a new root and issuing CA"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");

    let old = warning(&retiring(), &struck, &all[..1], now());
    assert!(old.contains("1 agent has a certificate under it"), "{old}");
    assert!(old.contains("the CA that signs now stays"), "{old}");
    let none = warning(&quiet(), &struck, &[], now());
    assert!(none.contains("  Breaks      nothing: no agent") && !none.contains("Where"), "{none}");
}

#[test]
fn a_namespace_too_many_is_counted() {
    let all: Vec<_> =
        (0..10).map(|n| agent(&format!("ns-{n}"), "prod", &key("bb", 1), 60)).collect();
    let text = warning(&quiet(), &[key("bb", 1)], &all, now());
    assert!(text.contains("ns-7 1 and 2 other namespaces"), "{text}");
}

const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn each_step_of_a_rotation_is_a_line() {
    let goal = Goal::Newer { kind: SlotKind::Root, number: 2 };
    let unreached = ["namespace a", "namespace b", "Secret c/d", "Secret e/f"];
    let stalled = with(preparing(Some(reached(12, &unreached, None))), ROTATING, true, "Stalled");
    for (domain, expected) in [
        (quiet(), "asked       the operator has not begun yet"),
        (
            preparing(None),
            "prepared    root 2 (key id aa00000000000000000000000000000000000002) signs nothing yet",
        ),
        (
            preparing(Some(reached(12, &unreached, None))),
            "publishing  8 of 12 targets hold the new bundle, without namespace a, namespace b, Secret c/d and 1 more",
        ),
        (
            preparing(Some(reached(12, &[], Some(600)))),
            "soaking     all 12 targets hold the new bundle; root 2 signs from 2026-11-24 22:40:00Z",
        ),
        (
            stalled,
            "stalled     8 of 12 targets hold the new bundle, without namespace a, namespace b, Secret c/d and 1 more: see to them, or set spec.ca.whenUnreached: Proceed; root 2 signs from 2027-03-04 22:30:00Z anyway",
        ),
    ] {
        let progress = progress(&domain, &goal, None, AT_ONCE);
        assert_eq!((progress.lines, progress.is_done), (vec![expected.to_owned()], false));
    }
}

#[test]
fn it_ends_when_the_new_ca_signs_and_says_until_when_the_old_one_is_trusted() {
    let goal = Goal::Newer { kind: SlotKind::Root, number: 2 };
    let progress = progress(&retiring(), &goal, None, AT_ONCE);
    assert!(progress.is_done);
    assert_eq!(
        progress.lines,
        [
            "active      root 2 (key id aa00000000000000000000000000000000000002) and issuing 2 sign",
            "retiring    root 1 and issuing 1 are trusted until 2026-11-25 22:32:00Z; their keys are destroyed then",
            "            agents get certificates of the new CA by themselves until then",
        ]
    );
}

#[test]
fn an_issuing_ca_alone_ends_sooner() {
    let goal = Goal::Newer { kind: SlotKind::Issuing, number: 2 };
    let domain = prod(vec![
        root(1, SlotPhase::Active),
        issuing(1, SlotPhase::Retiring, 1),
        issuing(2, SlotPhase::Active, 1),
    ]);
    let progress = progress(&domain, &goal, None, AT_ONCE);
    assert!(progress.is_done);
    assert_eq!(
        progress.lines[..2],
        [
            "active      issuing 2 (key id bb00000000000000000000000000000000000002) signs",
            "retiring    issuing 1 is trusted until 2026-11-25 22:32:00Z; its key is destroyed then",
        ]
    );
}

#[test]
fn an_operator_that_does_nothing_and_one_that_cannot_are_told_of() {
    let goal = Goal::Newer { kind: SlotKind::Root, number: 2 };
    let lines = progress(&quiet(), &goal, None, Duration::from_secs(31)).lines;
    assert!(lines[0].contains("does an operator run?"), "{lines:?}");
    let next = progress(&quiet(), &goal, None, AT_ONCE).next;
    assert_eq!(next, NextStep { at: None, what: "the operator takes it up".into() });
    let blocked = with(quiet(), READY, false, "CASecretMissing");
    let lines = progress(&blocked, &goal, None, AT_ONCE).lines;
    assert_eq!(lines[0], "not ready   the message of CASecretMissing");
}

#[test]
fn an_emergency_ends_when_nobody_has_a_certificate_of_the_distrusted_ca() {
    let goal = Goal::Distrusted(vec![key("aa", 1), key("bb", 1)]);
    let new = prod(vec![root(2, SlotPhase::Active), issuing(2, SlotPhase::Active, 2)]);
    let step = |domain: &TrustDomain, left: Option<usize>| {
        let progress = progress(domain, &goal, left.map(|left| Agents { left }), AT_ONCE);
        (progress.lines.last().unwrap().clone(), progress.is_done)
    };
    let (line, is_done) = step(&quiet(), Some(3));
    assert!(line.starts_with("asked") && !is_done, "{line}");
    let (line, is_done) = step(&preparing(None), Some(3));
    assert!(line.starts_with("prepared    root 2") && !is_done, "{line}");
    assert_eq!(step(&new, Some(3)), ("agents      without a new certificate: 3".into(), false));
    assert_eq!(
        step(&new, Some(0)),
        ("agents      none has a certificate under it any more".into(), true)
    );
    // Whoever may not count the agents is not told that they are well.
    assert!(!step(&new, None).1);
}

#[test]
fn only_what_has_changed_is_shown() {
    let lines = ["one".to_owned(), "two".to_owned()];
    assert_eq!(news(&[], &lines[..1]), ["one"]);
    assert_eq!(news(&lines[..1], &lines), ["two"]);
    assert_eq!(news(&lines, &lines[..1]), [""; 0]);
}

#[test]
fn the_countdown_fits_a_line() {
    let next = NextStep { at: Some(after(591)), what: "root 2 signs".into() };
    assert_eq!(countdown(&next, now()), "           next        root 2 signs in 9m 51s");
    let long = NextStep { at: None, what: "x".repeat(200) };
    assert_eq!(countdown(&long, now()).chars().count(), 79);
}
