//! HTTPS to servers that a spec names: whom to believe, and why one was not believed.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

/// A connection that is not there after this will not be.
const CONNECTING: Duration = Duration::from_secs(4);

/// A client that follows no redirect and speaks nothing but HTTPS. Copies share its connections.
pub type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that believes whoever has a certificate under one of these CAs or, where none are
/// given, under the roots of the operator's image.
///
/// # Errors
/// Where one of them is no CA certificate, or the image has no roots.
pub fn client(trusted: Option<&[CertificateDer<'static>]>) -> Result<HttpsClient, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = match trusted {
        Some(trusted) => {
            let mut roots = RootCertStore::empty();
            for certificate in trusted {
                roots.add(certificate.clone()).map_err(|error| error.to_string())?;
            }
            tls.with_root_certificates(roots)
        }
        None => tls.with_native_roots().map_err(|error| error.to_string())?,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECTING));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_no_client_auth())
        .https_only()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(https))
}

/// What TLS has against the other side, where that is why there is no answer.
pub fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error);
        }
        // An error of I/O that carries another says that it is its own cause's cause.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

/// The cause of all causes, in its own words.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
