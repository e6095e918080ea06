//! CRLs over HTTP: what anybody may ask, and that it is answered by every replica, whoever leads.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use countersign_e2e::crls::{self, serials_of};
use countersign_e2e::{ApiServer, Namespace, Operator, Options, seconds, wait_for};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::TEST;

/// Requests a second, from this many connections, for so long.
const RATE: usize = 1000;
const CONNECTIONS: usize = 10;
const FOR: Duration = seconds(3);

#[tokio::test]
async fn every_replica_answers_whatever_is_asked_and_whoever_leads() {
    let server = ApiServer::start().await;
    let ns = Namespace::create(&server, "http").await;
    let spec = json!({"domain": "http.test", "default": true, "authority": {"selfSigned": {}}});
    ns.trust_domain(TEST, spec).await;
    let first = Operator::start_leading(&server, Options::replica("first")).await;
    let second = Operator::start(&server, Options::replica("second")).await;
    ns.identity("planner", json!({})).await;
    let leaf = ns.settled("planner").await;
    let pem = ns.crl_pem(TEST).await;
    let all = crls::ders(&pem);
    for (key_id, crl) in crls::read(&pem) {
        let path = format!("/crl/{key_id}.crl");
        for operator in [&first, &second] {
            let answer = served(operator.crls, &path).await;
            let der = &answer.body;
            assert!(all.iter().any(|known| known.as_ref() == der), "{key_id}: as in crl.pem");
            assert_eq!(countersign::x509::read_crl(der).unwrap(), crl);
        }
    }
    let issuing = ns.crls(TEST).await.into_values().map(|crl| format!("/crl/{}.crl", crl.key_id));
    let paths: Vec<String> = issuing.collect();
    caches(first.crls, &paths[0]).await;
    refuses(first.crls, &paths[0]).await;
    under_load(&ns, [first.crls, second.crls], &paths[0]).await;

    // A new CRL has another tag, and both replicas have it.
    let mut tags = HashMap::new();
    for path in &paths {
        tags.insert(path, served(second.crls, path).await.headers["etag"].clone());
    }
    ns.change_identity("planner", json!({"spec": {"revoked": {"reason": "KeyCompromise"}}})).await;
    let now = ns.on_crl(TEST, &[leaf.serial.clone()].into()).await;
    let changed = now.values().find(|crl| crl.entries.contains_key(&leaf.serial)).unwrap();
    let path = format!("/crl/{}.crl", changed.key_id);
    for operator in [&first, &second] {
        wait_for("the new CRL is served", seconds(10), async || {
            let known = [("if-none-match", tags[&path].as_str())];
            let answer =
                ask(operator.crls, "GET", &path, &known).await.map_err(|e| e.to_string())?;
            if answer.status != 200 {
                return Err(format!("{answer:?}"));
            }
            let crl = countersign::x509::read_crl(&answer.body).unwrap();
            if crl.entries.contains_key(&leaf.serial) { Ok(()) } else { Err("old".to_owned()) }
        })
        .await;
    }
    assert!(serials_of(&now).contains(&leaf.serial));

    // Without the leader, and then without the API server.
    first.kill();
    served(second.crls, &path).await;
    server.stop_api_server();
    served(second.crls, &path).await;
}

/// Whoever has the CRL is told so in a few bytes.
async fn caches(address: SocketAddr, path: &str) {
    let answer = served(address, path).await;
    let tag = answer.headers["etag"].clone();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 66, "{tag}");
    assert_eq!(answer.headers["cache-control"], "public, max-age=60");
    assert_eq!(answer.headers["content-type"], "application/pkix-crl");
    let (weak, several) = (format!("W/{tag}"), format!("\"other\", {tag}"));
    for (what, known, status) in [
        ("the same", tag.as_str(), 304),
        ("the same, weakly", &weak, 304),
        ("one of several", &several, 304),
        ("any", "*", 304),
        ("another", "\"other\"", 200),
        ("no tag at all", "rubbish", 200),
    ] {
        for method in ["GET", "HEAD"] {
            let known = [("if-none-match", known)];
            let found = ask(address, method, path, &known).await.unwrap();
            assert_eq!(found.status, status, "{method} {what}");
            assert_eq!(found.headers["etag"], tag, "{method} {what}");
            assert_eq!(found.headers["cache-control"], "public, max-age=60", "{method} {what}");
            let is_whole = method == "GET" && status == 200;
            assert_eq!(found.body, if is_whole { answer.body.clone() } else { Vec::new() });
        }
    }
    let head = ask(address, "HEAD", path, &[]).await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], answer.body.len().to_string());
}

/// Nothing else is there, and nothing that is asked stops it.
async fn refuses(address: SocketAddr, path: &str) {
    let name = path.trim_start_matches("/crl/");
    let long = format!("/crl/{}.crl", "a".repeat(8000));
    let upper = path.to_uppercase();
    let twice = format!("{path}{path}");
    for wrong in [
        "/",
        "/crl",
        "/crl/",
        "/crl//",
        "/metrics",
        "/healthz",
        "/crl/.crl",
        "/crl/00.crl",
        "/crl/../metrics",
        "/crl/..%2fmetrics",
        "/crl/%2e%2e/%2e%2e/etc/passwd",
        "/crl/..%5c..",
        "/crl/%2fetc%2fpasswd",
        "/crl/%00.crl",
        "/crl/%ff%fe.crl",
        "/crl/%.crl",
        &long,
        &upper,
        &twice,
        &format!("{path}/"),
        &format!("{path}%00"),
        &format!("//crl/{name}"),
        name.trim_end_matches(".crl"),
    ] {
        let wrong = if wrong.starts_with('/') { wrong.to_owned() } else { format!("/crl/{wrong}") };
        let answer = ask(address, "GET", &wrong, &[]).await.unwrap();
        let shown: String = wrong.chars().take(60).collect();
        assert!([400, 404].contains(&answer.status), "{shown}: {}", answer.status);
        assert!(!answer.body.windows(4).any(|word| word == b"root"), "{shown}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let answer = ask(address, method, path, &[]).await.unwrap();
        assert_eq!(answer.status, 405, "{method}");
    }
    let endless = [b"GET /crl/".as_slice(), &[b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat();
    for (what, sent) in [
        ("a NUL", b"GET /crl/\0.crl HTTP/1.1\r\nHost: h\r\n\r\n".as_slice()),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("a megabyte of a path", &endless),
    ] {
        let said = raw(address, sent).await;
        assert!(!said.starts_with("HTTP/1.1 2"), "{what}: {said}");
        served(address, path).await;
    }
}

/// A thousand requests a second, while agents get their certificates.
async fn under_load(ns: &Namespace, addresses: [SocketAddr; 2], path: &str) {
    let began = Instant::now();
    let clients = (0..CONNECTIONS).map(|number| {
        let (path, address) = (path.to_owned(), addresses[number % 2]);
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let pause =
                seconds(1) * u32::try_from(CONNECTIONS).unwrap() / u32::try_from(RATE).unwrap();
            let mut turns = tokio::time::interval(pause);
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while began.elapsed() < FOR {
                turns.tick().await;
                let asked = Instant::now();
                let answer = exchange(&mut stream, "GET", &path, &[]).await.unwrap();
                assert_eq!(answer.status, 200);
                slowest = slowest.max(asked.elapsed());
                count += 1;
            }
            (count, slowest)
        })
    });
    let clients: Vec<_> = clients.collect();
    let issued = Instant::now();
    for number in 0..20 {
        ns.identity(&format!("agent-{number}"), json!({})).await;
    }
    for number in 0..20 {
        ns.ready(&format!("agent-{number}")).await;
    }
    let issued = issued.elapsed();
    let (mut count, mut slowest) = (0, Duration::ZERO);
    for client in clients {
        let (some, slow) = client.await.expect("each is answered");
        (count, slowest) = (count + some, slowest.max(slow));
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    println!(
        "{count} CRLs over HTTP, {rate:.0} a second, the slowest after {slowest:?}; 20 identities meanwhile in {issued:?}"
    );
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// What is there is served at once, whatever else goes on.
async fn served(address: SocketAddr, path: &str) -> Answer {
    wait_for(&format!("{path} is served"), seconds(20), async || {
        let answer = ask(address, "GET", path, &[]).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.status.to_string()) }
    })
    .await
}

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let asked = exchange(&mut stream, method, path, headers);
    timeout(seconds(10), asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// One request and its answer, on a connection that stays open.
async fn exchange(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: crl\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let has_body = method != "HEAD" && status != 304;
    let mut body = vec![0; length.filter(|_| has_body).unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok(Answer { status, headers, body })
}

/// What comes back for bytes that are no request: nothing, perhaps.
async fn raw(address: SocketAddr, sent: &[u8]) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        // It may hang up before it has read all of it.
        let _ = stream.write_all(sent).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        io::Result::Ok(String::from_utf8_lossy(&said).into_owned())
    };
    timeout(seconds(20), talk).await.expect("it hangs up").expect("it can be reached")
}
