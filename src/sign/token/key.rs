//! A key pair in a token: making one, finding it again, signing with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::{self, UnparsedPublicKey};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use rcgen::PublicKeyData;
use zeroize::Zeroizing;

use super::error::{Fault, TokenError};
use super::module::{Epoch, Module};
use super::{KeyId, KeyReference, objects};
use crate::api::CaKeyAlgorithm;
use crate::api::names::KEY_URI;
use crate::identity::TokenAddress;
use crate::sign::CaKey;

/// A private key that stays in its token.
///
/// Every signature is made in the token. For ECDSA what is to be signed is hashed here, and its
/// digest goes in: every token knows plain ECDSA, and not every one with every hash. For RSA it is
/// the other way round: a TPM takes a key that may sign and not decrypt for plain RSA to be neither.
#[derive(Clone)]
pub struct TokenKey {
    reference: KeyReference,
    algorithm: CaKeyAlgorithm,
    /// The key as X.509 has it within a SubjectPublicKeyInfo: an EC point, or an RSAPublicKey.
    public: Vec<u8>,
    /// Where the private key was found last.
    handle: Arc<Mutex<Option<(Epoch, ObjectHandle)>>>,
    /// What the last signature that was not made failed of; rcgen's errors have no room for it.
    failure: Arc<Mutex<Option<TokenError>>>,
}

impl TokenKey {
    pub(super) fn new(reference: KeyReference, algorithm: CaKeyAlgorithm, public: Vec<u8>) -> Self {
        let (handle, failure) = (Arc::default(), Arc::default());
        TokenKey { reference, algorithm, public, handle, failure }
    }

    /// The key that a certificate's SubjectPublicKeyInfo is of. The token is not asked yet.
    ///
    /// # Errors
    /// When it is of no kind that we make in a token.
    pub fn of(reference: KeyReference, public_key_info: &[u8]) -> Result<Self, TokenError> {
        let wrong = |why: &str| TokenError::Algorithm(why.to_owned());
        let info = rcgen::SubjectPublicKeyInfo::from_der(public_key_info)
            .map_err(|error| wrong(&error.to_string()))?;
        let public = info.der_bytes();
        let algorithm = match info.algorithm() {
            known if *known == rcgen::PKCS_ECDSA_P256_SHA256 => CaKeyAlgorithm::EcdsaP256,
            known if *known == rcgen::PKCS_ECDSA_P384_SHA384 => CaKeyAlgorithm::EcdsaP384,
            // How long it is matters only to who makes one.
            known if *known == rcgen::PKCS_RSA_SHA256 => CaKeyAlgorithm::Rsa3072,
            _ => return Err(wrong("it is neither P-256 nor P-384 nor RSA")),
        };
        Ok(TokenKey::new(reference, algorithm, public.to_vec()))
    }

    /// Where it is.
    pub fn reference(&self) -> &KeyReference {
        &self.reference
    }

    /// Signs, in the token. ECDSA comes as X.509 has it (RFC 3279, 2.2.3), RSA as PKCS#1 v1.5.
    ///
    /// # Errors
    /// When the token cannot be asked, or does not hold the key any more.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let result = self.with(|session, epoch| {
            let handle = match self.known(epoch) {
                Some(handle) => handle,
                None => self.look_for(session, epoch)?,
            };
            self.sign_with(session, handle, message)
        });
        *lock(&self.failure) = result.as_ref().err().cloned();
        result
    }

    /// Sees that the token holds the private key.
    ///
    /// # Errors
    /// When it does not, or cannot be asked.
    pub fn find(&self) -> Result<(), TokenError> {
        self.with(|session, epoch| self.look_for(session, epoch).map(drop))
    }

    /// Why the last signature was not made; None where it was.
    pub fn failure(&self) -> Option<TokenError> {
        lock(&self.failure).clone()
    }

    fn known(&self, epoch: Epoch) -> Option<ObjectHandle> {
        lock(&self.handle).filter(|(of, _)| *of == epoch).map(|(_, handle)| handle)
    }

    /// Finds the private key that belongs to the public one. That it is the one is told by what it
    /// signs: an id can be given to several, and not every token keeps the public half.
    fn look_for(&self, session: &Session, epoch: Epoch) -> Result<ObjectHandle, Fault> {
        let mut failed = None;
        for handle in objects(session, &self.reference.id, ObjectClass::PRIVATE_KEY)? {
            let signature = match self.sign_with(session, handle, PROBE) {
                Ok(signature) => signature,
                // Of another kind than ours, or half of a key, which a kill left: SoftHSM answers for
                // that as if it were broken itself.
                Err(fault) => {
                    failed = failed.or(Some(fault).filter(Fault::is_of_session));
                    continue;
                }
            };
            if self.verifies(PROBE, &signature) {
                *lock(&self.handle) = Some((epoch, handle));
                return Ok(handle);
            }
        }
        let (label, id) = (self.reference.token.label.clone(), self.reference.id.clone());
        Err(failed.unwrap_or_else(|| TokenError::KeyMissing { label, id }.into()))
    }

    fn with<T>(&self, work: impl Fn(&Session, Epoch) -> Result<T, Fault>) -> Result<T, TokenError> {
        let TokenAddress { label, module, .. } = &self.reference.token;
        let closed = || TokenError::Closed { label: label.clone() };
        let module = Module::that_opened(label, module).ok_or_else(closed)?;
        let pin = module.known_pin(label).ok_or_else(closed)?;
        module.with(label, &pin, work)
    }

    fn sign_with(
        &self,
        session: &Session,
        handle: ObjectHandle,
        message: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        use aws_lc_rs::digest::{SHA256, SHA384, digest};
        Ok(match self.algorithm {
            CaKeyAlgorithm::EcdsaP256 => ecdsa_der(&session.sign(
                &Mechanism::Ecdsa,
                handle,
                digest(&SHA256, message).as_ref(),
            )?),
            CaKeyAlgorithm::EcdsaP384 => ecdsa_der(&session.sign(
                &Mechanism::Ecdsa,
                handle,
                digest(&SHA384, message).as_ref(),
            )?),
            CaKeyAlgorithm::Rsa3072 | CaKeyAlgorithm::Rsa4096 => {
                match session.sign(&Mechanism::Sha256RsaPkcs, handle, message) {
                    Err(Pkcs11Error::Pkcs11(RvError::MechanismInvalid, _)) => {
                        let mut info = SHA256_DIGEST_INFO.to_vec();
                        info.extend_from_slice(digest(&SHA256, message).as_ref());
                        session.sign(&Mechanism::RsaPkcs, handle, &info)?
                    }
                    signed => signed?,
                }
            }
        })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
            CaKeyAlgorithm::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            CaKeyAlgorithm::EcdsaP384 => &signature::ECDSA_P384_SHA384_ASN1,
            CaKeyAlgorithm::Rsa3072 | CaKeyAlgorithm::Rsa4096 => {
                &signature::RSA_PKCS1_2048_8192_SHA256
            }
        };
        UnparsedPublicKey::new(algorithm, &self.public).verify(message, signature).is_ok()
    }
}

impl rcgen::PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.algorithm {
            CaKeyAlgorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            CaKeyAlgorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            CaKeyAlgorithm::Rsa3072 | CaKeyAlgorithm::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        TokenKey::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl CaKey for TokenKey {
    fn kept(&self) -> (&'static str, Zeroizing<Vec<u8>>) {
        (KEY_URI, Zeroizing::new(self.reference.to_string().into_bytes()))
    }

    fn in_token(&self) -> Option<&TokenKey> {
        Some(self)
    }
}

/// What a key signs to show that it is the one. No certificate and no CRL begins like this, so
/// that the signature is good for nothing else.
const PROBE: &[u8] = b"countersign: is this the key of the certificate?";

/// DigestInfo for SHA-256 up to the digest (RFC 8017, 9.2, note 1).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// The named curves as CKA_EC_PARAMS has them: object identifiers in DER (RFC 5480, 2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// 65537, big-endian.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Makes a key pair, and gives the public half as X.509 has it.
pub(super) fn generate(
    session: &Session,
    id: &KeyId,
    name: &str,
    algorithm: CaKeyAlgorithm,
) -> Result<Vec<u8>, Fault> {
    let common = [
        Attribute::Token(true),
        Attribute::Label(name.as_bytes().to_vec()),
        Attribute::Id(id.0.to_vec()),
    ];
    let mut public = common.to_vec();
    let mechanism = match algorithm {
        CaKeyAlgorithm::EcdsaP256 | CaKeyAlgorithm::EcdsaP384 => {
            let curve: &[u8] = if algorithm == CaKeyAlgorithm::EcdsaP256 { &P256 } else { &P384 };
            public.push(Attribute::EcParams(curve.to_vec()));
            Mechanism::EccKeyPairGen
        }
        CaKeyAlgorithm::Rsa3072 | CaKeyAlgorithm::Rsa4096 => {
            let bits = if algorithm == CaKeyAlgorithm::Rsa3072 { 3072 } else { 4096 };
            public.push(Attribute::ModulusBits(cryptoki::types::Ulong::new(bits)));
            public.push(Attribute::PublicExponent(RSA_EXPONENT.to_vec()));
            Mechanism::RsaPkcsKeyPairGen
        }
    };
    let mut private = common.to_vec();
    private.extend([
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
    ]);
    let (public, _) = session.generate_key_pair(&mechanism, &public, &private)?;
    public_key(session, public, algorithm)?
        .ok_or_else(|| Fault::Token(TokenError::Algorithm("the token made another one".to_owned())))
}

/// The public halves of the keys of this id and algorithm, whose private keys were made in the
/// token and cannot leave it. One that could leave it may have left it.
pub(super) fn left_behind(
    session: &Session,
    id: &KeyId,
    algorithm: CaKeyAlgorithm,
) -> Result<Vec<Vec<u8>>, Fault> {
    for private in objects(session, id, ObjectClass::PRIVATE_KEY)? {
        let wanted =
            [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Local(true)];
        let types = wanted.each_ref().map(Attribute::attribute_type);
        let is = session.get_attributes(private, &types)?;
        if !wanted.iter().all(|attribute| is.contains(attribute)) {
            return Ok(Vec::new());
        }
    }
    let mut found = Vec::new();
    for object in objects(session, id, ObjectClass::PUBLIC_KEY)? {
        found.extend(public_key(session, object, algorithm)?);
    }
    Ok(found)
}

/// A public key as X.509 has it; None where it is of another algorithm.
fn public_key(
    session: &Session,
    object: ObjectHandle,
    algorithm: CaKeyAlgorithm,
) -> Result<Option<Vec<u8>>, Fault> {
    let types = [
        AttributeType::KeyType,
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    let (mut kind, mut curve, mut point, mut modulus, mut exponent) =
        (None, None, None, None, None);
    for attribute in session.get_attributes(object, &types)? {
        match attribute {
            Attribute::KeyType(value) => kind = Some(value),
            Attribute::EcParams(value) => curve = Some(value),
            Attribute::EcPoint(value) => point = Some(value),
            Attribute::Modulus(value) => modulus = Some(value),
            Attribute::PublicExponent(value) => exponent = Some(value),
            _ => {}
        }
    }
    let on = |wanted: &[u8]| kind == Some(KeyType::EC) && curve.as_deref() == Some(wanted);
    let of = |bits: usize| {
        kind == Some(KeyType::RSA) && modulus.as_ref().map(Vec::len) == Some(bits / 8)
    };
    let fits = match algorithm {
        CaKeyAlgorithm::EcdsaP256 => on(&P256),
        CaKeyAlgorithm::EcdsaP384 => on(&P384),
        CaKeyAlgorithm::Rsa3072 => of(3072),
        CaKeyAlgorithm::Rsa4096 => of(4096),
    };
    Ok(match (fits, point, modulus, exponent) {
        (true, Some(point), _, _) => Some(bare_point(&point).to_vec()),
        (true, _, Some(modulus), Some(exponent)) => Some(rsa_public_key(&modulus, &exponent)),
        _ => None,
    })
}

/// CKA_EC_POINT is an OCTET STRING around the point (PKCS#11 2.40, 2.3.3), which some tokens leave out.
/// Both begin with 4: the length alone tells them apart.
fn bare_point(value: &[u8]) -> &[u8] {
    match value.len() {
        // An uncompressed point of P-256 and of P-384, with two bytes before it.
        67 | 99 => &value[2..],
        _ => value,
    }
}

/// RSAPublicKey (RFC 8017, A.1.1).
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(modulus, true);
            writer.next().write_bigint_bytes(exponent, true);
        });
    })
}

/// r and s, one after the other, as X.509 has them (ECDSA-Sig-Value, RFC 3279, 2.2.3).
fn ecdsa_der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(r, true);
            writer.next().write_bigint_bytes(s, true);
        });
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_out_of_its_octet_string() {
        let point = [&[4_u8, 63][..], &[7; 63]].concat();
        let wrapped = [&[4_u8, 65][..], &point].concat();
        assert_eq!(bare_point(&wrapped), point);
        assert_eq!(bare_point(&point), point);
    }

    #[test]
    fn r_and_s_become_integers_without_leading_zeros_and_never_negative() {
        let signature = [&[0_u8; 30][..], &[0x80, 1], &[0x7f; 32]].concat();
        let der = ecdsa_der(&signature);
        assert_eq!(der[..7], [0x30, 39, 2, 3, 0, 0x80, 1]);
        assert_eq!(der[7..9], [2, 32]);
        assert_eq!(der[9..], [0x7f; 32]);
    }
}
