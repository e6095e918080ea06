//! Every way in which an issuing CA of somebody else's can be unfit, as a row; and those that are
//! fit. e2e/tests/authorities does the same with CAs that OpenSSL made, weak ones among them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::*;
use crate::api::TrustDomain;

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn at(days: i64) -> OffsetDateTime {
    let moment = now() + SignedDuration::from_hours(24 * days);
    OffsetDateTime::from_unix_timestamp(moment.as_second()).unwrap()
}

fn domain(identities: Value) -> Domain {
    let resource: TrustDomain = serde_json::from_value(json!({
        "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
        "spec": {
            "domain": "prod.example.com", "authority": {"secret": {"name": "corporate-ca"}},
            "identities": identities,
        },
    }))
    .unwrap();
    Domain::parse(&resource).unwrap()
}

/// A CA of ten years around now.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (at(-10), at(3650));
    params
}

type Change = fn(&mut CertificateParams);
const AS_IT_IS: Change = |_| {};

/// A root, an intermediate and an issuing CA.
struct Three {
    root: String,
    intermediate: String,
    issuing: String,
    key: String,
}

impl Three {
    fn made(root: Change, intermediate: Change, issuing: Change) -> Self {
        let keys: Vec<KeyPair> = (0..3).map(|_| KeyPair::generate().unwrap()).collect();
        let changed = |name: &str, change: Change| {
            let mut params = params(name);
            change(&mut params);
            params
        };
        let key = keys[2].serialize_pem();
        let mut keys = keys.into_iter();
        let (root_key, middle_key, issuing_key) =
            (keys.next().unwrap(), keys.next().unwrap(), keys.next().unwrap());
        let root_params = changed("root", root);
        let root = root_params.self_signed(&root_key).unwrap().pem();
        let root_issuer = Issuer::new(root_params, root_key);
        let middle_params = changed("intermediate", intermediate);
        let intermediate = middle_params.signed_by(&middle_key, &root_issuer).unwrap().pem();
        let middle_issuer = Issuer::new(middle_params, middle_key);
        let issuing = changed("issuing", issuing);
        let issuing = issuing.signed_by(&issuing_key, &middle_issuer).unwrap().pem();
        Three { root, intermediate, issuing, key }
    }

    fn files(&self) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
        let chain = format!("{}{}", self.issuing, self.intermediate);
        files(&[(TLS_CRT, &chain), (TLS_KEY, &self.key), (CA_CRT, &self.root)])
    }
}

fn files(given: &[(&str, &str)]) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
    let file = |(name, text): &(&str, &str)| {
        ((*name).to_owned(), Zeroizing::new(text.as_bytes().to_vec()))
    };
    given.iter().map(file).collect()
}

async fn refused(files: &BTreeMap<String, Zeroizing<Vec<u8>>>, domain: &Domain) -> String {
    match Imported::read(files, domain, now()).await {
        Ok(_) => panic!("it was taken"),
        Err(refusal) => refusal.to_string(),
    }
}

fn constrain(
    params: &mut CertificateParams,
    permitted: &[GeneralSubtree],
    excluded: &[GeneralSubtree],
) {
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted.to_vec(),
        excluded_subtrees: excluded.to_vec(),
    });
}

#[tokio::test]
async fn a_ca_that_is_fit_comes_with_its_chain_and_its_root() {
    let three = Three::made(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let (Three { root, intermediate, issuing, key }, domain) = (&three, domain(json!({})));
    let chain = format!("{issuing}{intermediate}");
    let whole = format!("{chain}{root}");
    let others = format!("{issuing}{root}");
    for (sentence, given) in [
        ("the root in ca.crt", files(&[(TLS_CRT, &chain), (TLS_KEY, key), (CA_CRT, root)])),
        ("the root at the end of tls.crt", files(&[(TLS_CRT, &whole), (TLS_KEY, key)])),
        ("the root in both", files(&[(TLS_CRT, &whole), (TLS_KEY, key), (CA_CRT, root)])),
        (
            "other certificates in ca.crt",
            files(&[(TLS_CRT, &chain), (TLS_KEY, key), (CA_CRT, &others)]),
        ),
    ] {
        let imported = Imported::read(&given, &domain, now()).await;
        let imported = imported.unwrap_or_else(|error| panic!("{sentence}: {error}"));
        assert_eq!(imported.issuing.above.len(), 1, "{sentence}");
        assert_eq!(
            imported.issuing.signed_by(Some(&imported.root)),
            Some(imported.root.ca.key_id.clone()),
            "{sentence}"
        );
        assert!(imported.root.key.is_none(), "{sentence}");
        let offer = imported.offer();
        let root = x509::read_pem(root.as_bytes()).unwrap();
        assert_eq!(offer.root.certificate_pem, x509::write_pem(&root), "{sentence}");
        assert_eq!(offer.issuing.unwrap().fingerprint, imported.issuing.ca.fingerprint);
    }
}

#[tokio::test]
async fn the_earliest_end_of_the_chain_is_that_of_the_ca() {
    let three = Three::made(AS_IT_IS, |intermediate| intermediate.not_after = at(5), AS_IT_IS);
    let imported = Imported::read(&three.files(), &domain(json!({})), now()).await.unwrap();
    assert_eq!(imported.issuing.ca.not_after, now() + SignedDuration::from_hours(120));
}

#[tokio::test]
async fn a_root_that_signs_leaves_itself_is_its_own_issuing_ca() {
    let key = KeyPair::generate().unwrap();
    let root = params("alone").self_signed(&key).unwrap().pem();
    let given = files(&[(TLS_CRT, &root), (TLS_KEY, &key.serialize_pem())]);
    let imported = Imported::read(&given, &domain(json!({})), now()).await.unwrap();
    assert_eq!(imported.issuing.certificate, imported.root.certificate);
    assert!(imported.issuing.above.is_empty());
}

#[tokio::test]
async fn files_that_are_no_ca_are_refused_with_what_to_put_there() {
    let three = Three::made(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let other = Three::made(AS_IT_IS, AS_IT_IS, AS_IT_IS);
    let Three { root, intermediate, issuing, key } = &three;
    let chain = format!("{issuing}{intermediate}");
    let turned = format!("{intermediate}{issuing}");
    let keys = format!("{key}{}", other.key);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let domain = domain(json!({}));
    for (sentence, given, said) in [
        ("nothing", files(&[]), "there is no tls.crt: put the issuing CA's certificate"),
        (
            "no key",
            files(&[(TLS_CRT, &chain), (CA_CRT, root)]),
            "there is no tls.key: put the issuing CA's private key there",
        ),
        ("no certificate", files(&[(TLS_KEY, key)]), "there is no tls.crt: put the issuing CA's"),
        (
            "another's key",
            files(&[(TLS_CRT, &chain), (TLS_KEY, &other.key), (CA_CRT, root)]),
            "tls.key is not the key of the issuing CA",
        ),
        (
            "two keys",
            files(&[(TLS_CRT, &chain), (TLS_KEY, &keys), (CA_CRT, root)]),
            "tls.key holds 2 private keys",
        ),
        (
            "a key with a passphrase",
            files(&[(TLS_CRT, &chain), (TLS_KEY, encrypted), (CA_CRT, root)]),
            "one with a passphrase cannot be",
        ),
        (
            "what is no key",
            files(&[(TLS_CRT, &chain), (TLS_KEY, "secret"), (CA_CRT, root)]),
            "no private key that can be read",
        ),
        (
            "a certificate that is none",
            files(&[(TLS_CRT, "x"), (TLS_KEY, key)]),
            "tls.crt cannot be read: there is no certificate in PEM",
        ),
        (
            "no root",
            files(&[(TLS_CRT, &chain), (TLS_KEY, key)]),
            "the root CA is missing: certificate 2 of the chain is not self-signed",
        ),
        (
            "another's root",
            files(&[(TLS_CRT, &chain), (TLS_KEY, key), (CA_CRT, &other.root)]),
            "put the root into ca.crt",
        ),
        (
            "an intermediate in place of the root",
            files(&[(TLS_CRT, issuing), (TLS_KEY, key), (CA_CRT, intermediate)]),
            "the root CA is missing: the issuing CA is not self-signed",
        ),
        (
            "a chain that is turned round",
            files(&[(TLS_CRT, &turned), (TLS_KEY, key), (CA_CRT, root)]),
            "the issuing CA is not signed by certificate 2 of the chain",
        ),
        (
            "a chain with a gap",
            files(&[(TLS_CRT, &format!("{issuing}{root}")), (TLS_KEY, key)]),
            "the issuing CA is not signed by certificate 2 of the chain",
        ),
    ] {
        let text = refused(&given, &domain).await;
        assert!(text.contains(said), "{sentence}: {text}");
        assert!(!text.contains("secret"), "{sentence}: {text}");
    }
}

#[tokio::test]
async fn a_ca_that_peers_would_refuse_is_refused_with_the_reason() {
    use GeneralSubtree::DnsName;
    let rows: [(&str, Three, &str); 15] = [
        (
            "no CA at all",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| issuing.is_ca = IsCa::ExplicitNoCa),
            "the issuing CA is not a CA",
        ),
        (
            "a CA that may not sign",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| {
                issuing.key_usages = vec![KeyUsagePurpose::CrlSign];
            }),
            "the issuing CA may not sign certificates (its key usage lacks keyCertSign)",
        ),
        (
            "a CA without key usage",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| issuing.key_usages = Vec::new()),
            "the issuing CA may not sign certificates",
        ),
        (
            "one that has expired",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| issuing.not_after = at(-1)),
            "the issuing CA expired at 2026-11-23T12:00:00Z",
        ),
        (
            "a root that has expired",
            Three::made(|root| root.not_after = at(-1), AS_IT_IS, AS_IT_IS),
            "the root CA expired at",
        ),
        (
            "one whose time has not come",
            Three::made(AS_IT_IS, |middle| middle.not_before = at(1), AS_IT_IS),
            "certificate 2 of the chain is not valid before 2026-11-25T12:00:00Z",
        ),
        (
            "one that is shorter than the leaves asked for",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| {
                issuing.not_after = at(0) + time::Duration::HOUR
            }),
            "the issuing CA ends at 2026-11-24T13:00:00Z, before a certificate of the longest life would (2026-11-25T12:00:00Z)",
        ),
        (
            "a path length that leaves no room",
            Three::made(
                AS_IT_IS,
                |middle| {
                    middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                },
                AS_IT_IS,
            ),
            "certificate 2 of the chain may have 0 CAs below it and has 1 (pathLenConstraint)",
        ),
        (
            "a root's path length that leaves no room",
            Three::made(
                |root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)),
                AS_IT_IS,
                AS_IT_IS,
            ),
            "the root CA may have 1 CAs below it and has 2",
        ),
        (
            "name constraints on DNS names",
            Three::made(
                AS_IT_IS,
                |middle| {
                    constrain(middle, &[DnsName("corp.example.com".to_owned())], &[]);
                },
                AS_IT_IS,
            ),
            "the name constraints of certificate 2 of the chain forbid DNS names below agents.example.com",
        ),
        (
            "name constraints that exclude a part",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| {
                constrain(issuing, &[], &[DnsName("x.agents.example.com".to_owned())]);
            }),
            "forbid DNS names below agents.example.com",
        ),
        (
            "another trust domain's URIs",
            Three::made(|root| uris(root, "other.example.com"), AS_IT_IS, AS_IT_IS),
            "the name constraints of the root CA forbid the SPIFFE IDs of prod.example.com",
        ),
        (
            "URIs below a domain, when ours is that domain itself",
            Three::made(|root| uris(root, ".prod.example.com"), AS_IT_IS, AS_IT_IS),
            "forbid the SPIFFE IDs of prod.example.com",
        ),
        (
            "our own URIs, which rustls refuses all the same",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| uris(issuing, ".example.com")),
            "the issuing CA has name constraints on URIs",
        ),
        (
            "a CA for other uses",
            Three::made(AS_IT_IS, AS_IT_IS, |issuing| {
                issuing.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            }),
            "the issuing CA is limited to other uses",
        ),
    ];
    let domain = domain(json!({"allowedDnsSuffixes": ["agents.example.com"]}));
    for (sentence, three, said) in rows {
        let text = refused(&three.files(), &domain).await;
        assert!(text.contains(said), "{sentence}: {text}");
    }
    let good = Three::made(AS_IT_IS, AS_IT_IS, |issuing| {
        constrain(issuing, &[DnsName("example.com".to_owned())], &[DnsName("x.org".to_owned())]);
        issuing.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        issuing.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    Imported::read(&good.files(), &domain, now()).await.unwrap();
}

/// Permits URIs of a host, or of those below it. rcgen cannot say that, and this is its DER:
/// permittedSubtrees [0], in it one GeneralSubtree with a uniformResourceIdentifier [6].
fn uris(params: &mut CertificateParams, host: &str) {
    let tlv =
        |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let subtree = tlv(0x30, &tlv(0x86, host.as_bytes()));
    let content = tlv(0x30, &tlv(0xa0, &subtree));
    let mut extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}

#[test]
fn a_key_is_taken_in_each_form_that_openssl_writes() {
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
    let made = aws_lc_rs::signature::EcdsaKeyPair::generate(
        &aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1_SIGNING,
    )
    .unwrap();
    let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&made.private_key()).unwrap();
    let sec1 = rustls_pki_types::PrivateSec1KeyDer::from(sec1.as_ref().to_vec());
    let rsa = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    // PKCS#8 is 26 bytes of header, and then PKCS#1.
    let pkcs1 = rustls_pki_types::PrivatePkcs1KeyDer::from(rsa.as_der()[26..].to_vec());
    for key in [PrivateKeyDer::from(sec1), PrivateKeyDer::from(pkcs1)] {
        let read = PrivateKey::from_foreign_der(&key).unwrap();
        let again = PrivateKey::from_pem(read.to_pem().as_bytes()).unwrap();
        assert_eq!(read.public_key(), again.public_key());
    }
}
