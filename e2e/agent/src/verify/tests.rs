//! Each row is a peer and what becomes of it; the same on both sides of a connection.

use rcgen::ExtendedKeyUsagePurpose;
use rustls_pki_types::CertificateRevocationListDer;
use time::OffsetDateTime;

use super::*;
use crate::forge::{ForgedCa, ForgedLeaf};

const PLANNER: &str = "spiffe://demo.countersign.dev/ns/research/sa/planner";
const TOOLS: &str = "spiffe://demo.countersign.dev/ns/research/sa/tools";

fn judged(
    trusted: &ForgedCa,
    leaf: &ForgedLeaf,
    usage: KeyUsage,
    expected: &[&str],
) -> Result<Accepted, Refusal> {
    let trust = Trust::new(std::slice::from_ref(&trusted.root), Revoked::default()).unwrap();
    let expected: Vec<_> = expected.iter().map(|id| (*id).to_owned()).collect();
    judge(&trust, usage, &expected, &leaf.chain[0], &leaf.chain[1..], UnixTime::now())
}

/// The same, by somebody who also holds a crl.pem with these lists.
fn judged_with_lists(
    trusted: &ForgedCa,
    leaf: &ForgedLeaf,
    lists: &[CertificateRevocationListDer<'_>],
) -> Result<Accepted, Refusal> {
    let revoked = Revoked::from_ders(lists).unwrap();
    let trust = Trust::new(std::slice::from_ref(&trusted.root), revoked).unwrap();
    let expected = [PLANNER.to_owned()];
    let judged =
        |usage| judge(&trust, usage, &expected, &leaf.chain[0], &leaf.chain[1..], UnixTime::now());
    let as_server = judged(KeyUsage::server_auth());
    assert_eq!(as_server, judged(KeyUsage::client_auth()));
    as_server
}

fn both_sides(
    trusted: &ForgedCa,
    leaf: &ForgedLeaf,
    expected: &[&str],
) -> Result<Accepted, Refusal> {
    let as_server = judged(trusted, leaf, KeyUsage::server_auth(), expected);
    let as_client = judged(trusted, leaf, KeyUsage::client_auth(), expected);
    assert_eq!(as_server, as_client);
    as_server
}

#[test]
fn the_right_id_under_the_right_ca_is_accepted_and_its_root_named() {
    let ca = ForgedCa::new("ours").unwrap();
    let accepted = both_sides(&ca, &ca.leaf(PLANNER).unwrap(), &[TOOLS, PLANNER]).unwrap();
    assert_eq!(accepted.peer.spiffe_id(), Some(PLANNER));
    assert_eq!(accepted.root, "CN=ours, root");
}

#[test]
fn the_wrong_id_is_refused_although_its_chain_is_good() {
    let ca = ForgedCa::new("ours").unwrap();
    let refusal = both_sides(&ca, &ca.leaf(PLANNER).unwrap(), &[TOOLS]).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::SomebodyElse { presented: PLANNER.to_owned(), expected: TOOLS.to_owned() }
    );
}

#[test]
fn an_id_that_only_begins_like_the_expected_one_is_refused() {
    let ca = ForgedCa::new("ours").unwrap();
    let longer = format!("{TOOLS}2");
    assert!(matches!(
        both_sides(&ca, &ca.leaf(&longer).unwrap(), &[TOOLS]),
        Err(Refusal::SomebodyElse { .. })
    ));
    assert!(matches!(
        both_sides(&ca, &ca.leaf(TOOLS).unwrap(), &[&longer]),
        Err(Refusal::SomebodyElse { .. })
    ));
}

#[test]
fn nobody_is_accepted_where_nobody_is_expected() {
    let ca = ForgedCa::new("ours").unwrap();
    assert!(matches!(
        both_sides(&ca, &ca.leaf(PLANNER).unwrap(), &[]),
        Err(Refusal::SomebodyElse { .. })
    ));
}

#[test]
fn the_right_id_under_another_ca_is_refused_even_if_that_ca_has_the_same_name() {
    let (ours, other) = (ForgedCa::new("ours").unwrap(), ForgedCa::new("ours").unwrap());
    let refusal = both_sides(&ours, &other.leaf(PLANNER).unwrap(), &[PLANNER]).unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::UnknownCa | Refusal::Chain(webpki::Error::InvalidSignatureForPublicKey)
        ),
        "{refusal}"
    );
    let elsewhere = ForgedCa::new("elsewhere").unwrap();
    assert_eq!(
        both_sides(&ours, &elsewhere.leaf(PLANNER).unwrap(), &[PLANNER]),
        Err(Refusal::UnknownCa)
    );
}

#[test]
fn an_expired_certificate_is_refused_and_so_is_one_of_the_future() {
    let ca = ForgedCa::new("ours").unwrap();
    let now = OffsetDateTime::from_unix_timestamp(crate::clock::now().as_second()).unwrap();
    let expired = ca
        .leaf_with(&[PLANNER], |params| params.not_after = now - time::Duration::seconds(2))
        .unwrap();
    assert_eq!(both_sides(&ca, &expired, &[PLANNER]), Err(Refusal::Expired));
    let future = ca
        .leaf_with(&[PLANNER], |params| params.not_before = now + time::Duration::minutes(1))
        .unwrap();
    assert_eq!(both_sides(&ca, &future, &[PLANNER]), Err(Refusal::NotYet));
}

#[test]
fn a_certificate_with_no_uri_or_two_is_no_identity() {
    let ca = ForgedCa::new("ours").unwrap();
    let none = ca.leaf_with(&[], |_| {}).unwrap();
    assert_eq!(both_sides(&ca, &none, &[PLANNER]), Err(Refusal::NotOneSpiffeId(0)));
    let two = ca.leaf_with(&[PLANNER, TOOLS], |_| {}).unwrap();
    assert_eq!(both_sides(&ca, &two, &[PLANNER, TOOLS]), Err(Refusal::NotOneSpiffeId(2)));
}

#[test]
fn a_certificate_for_clients_alone_cannot_serve() {
    let ca = ForgedCa::new("ours").unwrap();
    let leaf = ca
        .leaf_with(&[PLANNER], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
        })
        .unwrap();
    assert!(judged(&ca, &leaf, KeyUsage::client_auth(), &[PLANNER]).is_ok());
    assert!(matches!(
        judged(&ca, &leaf, KeyUsage::server_auth(), &[PLANNER]),
        Err(Refusal::Chain(_))
    ));
}

#[test]
fn a_leaf_without_its_issuing_certificate_is_refused() {
    let ca = ForgedCa::new("ours").unwrap();
    let mut leaf = ca.leaf(PLANNER).unwrap();
    leaf.chain.truncate(1);
    assert_eq!(both_sides(&ca, &leaf, &[PLANNER]), Err(Refusal::UnknownCa));
}

#[test]
fn a_ca_is_nobodys_identity() {
    let ca = ForgedCa::new("ours").unwrap();
    let leaf = ca
        .leaf_with(&[PLANNER], |params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0))
        })
        .unwrap();
    assert!(both_sides(&ca, &leaf, &[PLANNER]).is_err());
}

#[test]
fn the_revoked_is_refused_by_its_serial_and_the_others_are_not() {
    let ca = ForgedCa::new("ours").unwrap();
    let (good, bad) = (ca.leaf(PLANNER).unwrap(), ca.leaf(PLANNER).unwrap());
    let lists = ca.lists(false, &[&bad], time::Duration::hours(1));
    assert!(judged_with_lists(&ca, &good, &lists).is_ok());
    let serial = Facts::read(&bad.chain[0]).unwrap().serial;
    assert_eq!(judged_with_lists(&ca, &bad, &lists), Err(Refusal::Revoked(serial)));
}

#[test]
fn an_issuing_ca_that_its_root_revoked_takes_all_its_leaves_along() {
    let ca = ForgedCa::new("ours").unwrap();
    let leaf = ca.leaf(PLANNER).unwrap();
    let lists = ca.lists(true, &[], time::Duration::hours(1));
    assert_eq!(judged_with_lists(&ca, &leaf, &lists), Err(Refusal::CaRevoked));
}

#[test]
fn an_expired_list_refuses_everybody() {
    let ca = ForgedCa::new("ours").unwrap();
    let leaf = ca.leaf(PLANNER).unwrap();
    let lists = ca.lists(false, &[], time::Duration::seconds(-1));
    assert_eq!(judged_with_lists(&ca, &leaf, &lists), Err(Refusal::CrlExpired));
}

#[test]
fn a_list_of_another_ca_says_nothing_and_a_forged_one_refuses() {
    let (ca, other) = (ForgedCa::new("ours").unwrap(), ForgedCa::new("other").unwrap());
    let namesake = ForgedCa::new("ours").unwrap();
    let leaf = ca.leaf(PLANNER).unwrap();
    let lists = |of: &ForgedCa| of.lists(false, &[], time::Duration::hours(1));
    assert!(judged_with_lists(&ca, &leaf, &lists(&other)).is_ok());
    assert_eq!(
        judged_with_lists(&ca, &leaf, &lists(&namesake)),
        Err(Refusal::Chain(webpki::Error::InvalidCrlSignatureForPublicKey))
    );
}

#[test]
fn garbage_is_refused_and_not_panicked_at() {
    let ca = ForgedCa::new("ours").unwrap();
    let leaf = ForgedLeaf {
        chain: vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])],
        key: ca.leaf(PLANNER).unwrap().key,
    };
    assert!(both_sides(&ca, &leaf, &[PLANNER]).is_err());
}

#[test]
fn a_client_must_show_a_certificate() {
    let ca = ForgedCa::new("ours").unwrap();
    let trust = Arc::new(Trust::new(&[ca.root], Revoked::default()).unwrap());
    let verifier =
        PeerVerifier { trust, expected: vec![PLANNER.to_owned()], notes: SharedNotes::default() };
    assert!(verifier.offer_client_auth() && verifier.client_auth_mandatory());
}

#[test]
fn trust_in_nothing_is_an_error() {
    assert!(Trust::new(&[], Revoked::default()).is_err());
    assert!(Revoked::from_ders(&[]).is_err());
}
