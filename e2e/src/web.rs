//! One GET over plain HTTP: for the operator's health and metrics pages.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The headers, as they came.
    pub headers: String,
    /// The body.
    pub body: String,
}

/// Gets a page. Asks with HTTP/1.0, so that the answer is the whole connection.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Page> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer: io::Result<String> =
        tokio::time::timeout(Duration::from_secs(5), exchange)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s"))?;
    parse(&answer?).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn parse(answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1)?.parse().ok()?;
    Some(Page { status, headers: headers.to_owned(), body: body.to_owned() })
}
