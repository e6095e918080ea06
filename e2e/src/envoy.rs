//! A real Envoy that serves mutual TLS from the files of an identity's Secret, and a caller.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::delivered::{Delivered, verify};
use crate::process::Process;
use crate::workspace;

/// A running Envoy.
pub struct Envoy {
    process: Process,
    port: u16,
}

/// `meshConfig.pathNormalization.normalization` of Istio: what istiod writes into its Envoys for it.
#[derive(Clone, Copy, Debug)]
pub enum PathNormalization {
    /// The default.
    Base,
    DecodeAndMergeSlashes,
}

impl PathNormalization {
    fn fields(self) -> &'static str {
        match self {
            PathNormalization::Base => "\n          normalize_path: true",
            PathNormalization::DecodeAndMergeSlashes => {
                "\n          normalize_path: true\n          merge_slashes: true\n          path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD"
            }
        }
    }
}

/// In what one Envoy of the tests differs from another.
pub(crate) struct Setup<'a> {
    /// The file of the mount that says whom it trusts.
    pub trust: &'a str,
    /// More fields of the connection manager, each begun by a line break and its indent.
    pub fields: &'a str,
    /// HTTP filters before the router.
    pub filters: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { trust: "envoy-trust.yaml", fields: "", filters: "" }
    }
}

/// What a call got.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The chain that Envoy presented.
    pub peer: Vec<CertificateDer<'static>>,
}

impl Envoy {
    /// Starts one that reads its certificate and its trust from `mount`, as a pod's volume, and
    /// keeps its own files in `folder`.
    pub async fn start(folder: &Path, mount: &Path) -> Self {
        Self::spawn(folder, workspace::free_port(), mount, &Setup::default()).await
    }

    /// The same on a port, with the filters that an AgentAccessPolicy's ConfigMap holds: its files
    /// are in `access`.
    pub async fn start_guarded(folder: &Path, mount: &Path, access: &Path, port: u16) -> Self {
        let setup = Setup { filters: &guards(access), ..Setup::default() };
        Self::spawn(folder, port, mount, &setup).await
    }

    /// The same with HTTP filters that istiod made, and with the path normalization of its mesh.
    pub async fn start_meshed(
        folder: &Path,
        mount: &Path,
        port: u16,
        filters: &[Value],
        paths: PathNormalization,
    ) -> Self {
        let filters: String =
            filters.iter().map(|filter| format!("- {filter}\n          ")).collect();
        let setup = Setup { fields: paths.fields(), filters: &filters, ..Setup::default() };
        Self::spawn(folder, port, mount, &setup).await
    }

    async fn spawn(folder: &Path, port: u16, mount: &Path, setup: &Setup<'_>) -> Self {
        let file: PathBuf = folder.join("envoy.yaml");
        std::fs::write(&file, configuration(port, mount, setup)).expect("the folder is writable");
        let mut command = Command::new(workspace::tool("envoy"));
        command.arg("--config-path").arg(&file).args([
            "--log-level",
            "info",
            "--concurrency",
            "1",
            "--disable-hot-restart",
        ]);
        let process = Process::spawn("envoy", command, &folder.join("envoy.log"));
        Self { process, port }
    }

    /// True if and only if it still is the process that was started.
    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    /// One request over a new connection, with the caller's certificate and trust.
    pub async fn call(&self, caller: &Delivered, host: &str) -> io::Result<Answer> {
        let config = client(&caller.bundle)
            .with_client_auth_cert(caller.chain.clone(), caller.key.clone_key())
            .map_err(io::Error::other)?;
        self.request(config, host, &get(host)).await
    }

    /// A request of any kind, written out, over a new connection.
    pub async fn ask(&self, caller: &Delivered, request: &str) -> io::Result<u16> {
        let config = client(&caller.bundle)
            .with_client_auth_cert(caller.chain.clone(), caller.key.clone_key())
            .map_err(io::Error::other)?;
        self.request(config, "agent", request).await.map(|answer| answer.status)
    }

    /// The same without a certificate.
    pub async fn call_without_certificate(
        &self,
        bundle: &[CertificateDer<'static>],
        host: &str,
    ) -> io::Result<Answer> {
        self.request(client(bundle).with_no_client_auth(), host, &get(host)).await
    }

    async fn request(
        &self,
        mut config: ClientConfig,
        host: &str,
        request: &str,
    ) -> io::Result<Answer> {
        // A resumed session would show no certificate.
        config.resumption = rustls::client::Resumption::disabled();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let peer = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = peer.iter().map(|der| der.clone().into_owned()).collect();
        tls.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Not to its end: Envoy keeps the connection open for a second, for the caller to close it.
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if tls.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))?;
        Ok(Answer { status, peer })
    }
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// Somebody with a good certificate of a CA that nobody trusts. It has no bundle.
pub fn stranger() -> Delivered {
    let key = rcgen::KeyPair::generate().expect("a P-256 key can be made");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are no error");
    let id = "spiffe://test.countersign.dev/ns/evil/sa/evil".try_into().expect("it is ASCII");
    parameters.subject_alt_names = vec![rcgen::SanType::URI(id)];
    let certificate = parameters.self_signed(&key).expect("a key can sign for itself");
    Delivered {
        chain: vec![certificate.der().clone()],
        key: rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        bundle: Vec::new(),
    }
}

pub(crate) fn client(
    bundle: &[CertificateDer<'static>],
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier { bundle: bundle.to_vec(), provider: Arc::clone(&provider) };
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// Judges the chain as SPIFFE does: against the bundle, whatever the host is called.
#[derive(Debug)]
struct Verifier {
    bundle: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let now = i64::try_from(now.as_secs()).expect("the year is not that late");
        match verify(&chain, &self.bundle, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone is offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The filters of an AgentAccessPolicy's ConfigMap, as its user's Envoy refers to them.
fn guards(access: &Path) -> String {
    let filter = |name: &str, file: &str, kind: &str| {
        let folder = access.display();
        format!(
            r#"- name: {name}
            config_discovery:
              config_source:
                path_config_source: {{path: "{folder}/{file}", watched_directory: {{path: "{folder}"}}}}
                resource_api_version: V3
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.{kind}]
          "#
        )
    };
    filter("countersign-mcp", "envoy-mcp.json", "mcp.v3.Mcp")
        + &filter("countersign-access", "envoy-access.json", "rbac.v3.RBAC")
}

/// The node id is quoted since Envoy takes a bare number for one.
pub(crate) fn configuration(port: u16, mount: &Path, setup: &Setup<'_>) -> String {
    let mount = mount.display();
    let Setup { trust, fields, filters } = setup;
    format!(
        r#"
node: {{id: "test", cluster: "test"}}
static_resources:
  listeners:
  - name: agent
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: agent{fields}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                direct_response: {{status: 200, body: {{inline_string: "hello\n"}}}}
          http_filters:
          {filters}- name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs:
            - name: identity
              sds_config:
                path_config_source: {{path: "{mount}/envoy-identity.yaml", watched_directory: {{path: "{mount}"}}}}
                resource_api_version: V3
            validation_context_sds_secret_config:
              name: trust
              sds_config:
                path_config_source: {{path: "{mount}/{trust}", watched_directory: {{path: "{mount}"}}}}
                resource_api_version: V3
"#
    )
}
