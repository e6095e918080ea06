//! How fast a token signs, as the operator asks it to: `token --module FILE --token LABEL --pin PIN`.
//!
//! It makes a key of each algorithm, signs with it from one thread and from four, sees that each
//! signature holds, and destroys the key. `--make` and `--sweep` are for
//! tests that kill it. Where the module finds its tokens stands in the environment
//! (SOFTHSM2_CONF; TPM2_PKCS11_STORE and TPM2_PKCS11_TCTI), as for the operator.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use countersign::api::CaKeyAlgorithm;
use countersign::identity::TokenAddress;
use countersign::sign::token::{KeyId, Pin, Token, TokenError, TokenKey};
use rcgen::{PublicKeyData, SigningKey};

/// Which token.
#[derive(Parser)]
struct Arguments {
    /// The PKCS#11 module
    #[arg(long)]
    module: PathBuf,
    /// The token's label
    #[arg(long)]
    token: String,
    /// The user PIN: it is no secret here
    #[arg(long)]
    pin: String,
    /// One algorithm alone, such as ECDSA-P256: a TPM without a resource manager keeps a key that
    /// was destroyed in one of its three places until it is started again
    #[arg(long)]
    algorithm: Option<String>,
    /// How many seconds each rate is measured
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Makes the key of this name, or takes it up, and does nothing else
    #[arg(long)]
    make: Option<String>,
    /// Destroys all that `--make` left, and does nothing else
    #[arg(long)]
    sweep: bool,
}

const ALGORITHMS: [(CaKeyAlgorithm, &str); 4] = [
    (CaKeyAlgorithm::EcdsaP256, "ECDSA-P256"),
    (CaKeyAlgorithm::EcdsaP384, "ECDSA-P384"),
    (CaKeyAlgorithm::Rsa3072, "RSA-3072"),
    (CaKeyAlgorithm::Rsa4096, "RSA-4096"),
];

fn main() -> Result<(), TokenError> {
    let arguments = Arguments::parse();
    let pin = Pin::read(arguments.pin.as_bytes()).expect("it is a PIN");
    let address = TokenAddress {
        module: arguments.module,
        label: arguments.token,
        pin_secret: "none".to_owned(),
        pin_key: "none".to_owned(),
    };
    let token = Token::new(address, pin)?;
    token.check()?;
    if let Some(name) = &arguments.make {
        let key = token.make_key(&KeyId::of("bench", name), name, CaKeyAlgorithm::EcdsaP256)?;
        return key.sign(b"it can").map(drop);
    }
    if arguments.sweep {
        println!("{} objects are destroyed", token.sweep("bench", &[])?);
        return Ok(());
    }
    let wanted = arguments.algorithm.as_deref();
    for (algorithm, name) in ALGORITHMS.into_iter().filter(|of| wanted.is_none_or(|it| it == of.1))
    {
        let id = KeyId::of("bench", name);
        let began = Instant::now();
        let key = match token.make_key(&id, "countersign-bench", algorithm) {
            Ok(key) => key,
            Err(error @ TokenError::Unsupported { .. }) => {
                println!("{name}: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        let made = began.elapsed();
        let again = token.make_key(&id, "countersign-bench", algorithm)?;
        assert_eq!(key.der_bytes(), again.der_bytes(), "the same key is taken up again");
        let found = TokenKey::of(key.reference().clone(), &key.subject_public_key_info())?;
        found.find()?;
        let limit = Duration::from_secs(arguments.seconds);
        let (one, four) = (rate(&key, 1, limit), rate(&key, 4, limit));
        assert_eq!(token.destroy_key(&id)?, 1, "one key was made");
        let gone = SigningKey::sign(&key, b"x").err().and_then(|_| key.failure());
        println!(
            "{name}: made in {} ms, {one} signatures/s, {four} from four threads; after its end: {}",
            made.as_millis(),
            gone.map_or("it still signs".to_owned(), |error| error.to_string()),
        );
    }
    Ok(())
}

/// Signatures a second.
fn rate(key: &TokenKey, threads: usize, limit: Duration) -> u64 {
    let (count, began) = (AtomicU32::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while began.elapsed() < limit {
                    key.sign(b"about as long as a leaf's digest").expect("the token signs");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    u64::from(count.into_inner()) * 1000 / u64::try_from(began.elapsed().as_millis()).unwrap_or(1)
}
