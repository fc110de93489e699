//! A small HTTP/1.1 server on the loopback interface, for answers that are made up on this machine.
//!
//! One thread accepts, one serves each connection, and a connection carries one request. What it says is decided by a
//! [`Handler`]; besides whole answers it can fall silent, cut an answer, or send it in pieces of any size, which is what
//! servers do that a client has to bear with. It is no server for strangers: it listens on 127.0.0.1 alone.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::request::REQUEST_BYTES_MAX;

/// The most bytes of the head of a request.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a client may take between two pieces of a request.
const READ_TIME: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `POST`.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// Its headers in their order, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Headers besides those that say how the body comes.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// How a body comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// At once, with its length.
    Whole(Vec<u8>),
    /// In chunks, each sent by itself.
    Chunks(Vec<Vec<u8>>, End),
    /// Not at all: there is not even a status, until the client goes away.
    Silence,
}

/// How a body in chunks ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Whole,
    /// The connection is closed before its end.
    Cut,
    /// Nothing more comes, until the client goes away.
    Silence,
}

/// Decides what is answered. Called on the threads of connections.
pub trait Handler: Send + Sync + 'static {
    /// The answer to a request.
    fn answer(&self, asked: Asked) -> Answered;
}

impl<F: Fn(Asked) -> Answered + Send + Sync + 'static> Handler for F {
    fn answer(&self, asked: Asked) -> Answered {
        self(asked)
    }
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stopping: AtomicBool,
    connections: AtomicU64,
    open: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(handler: impl Handler) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let (shared, handler) = (state.clone(), Arc::new(handler));
        let accepting = std::thread::Builder::new().name("loopback".to_owned()).spawn(move || {
            accept(&listener, &shared, &handler);
        })?;
        Ok(Server { address, state, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made to it so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; if nothing can connect, it does not wait either.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn accept<H: Handler>(listener: &TcpListener, state: &Arc<State>, handler: &Arc<H>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        if state.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        threads.retain(|thread| !thread.is_finished());
        let Ok(kept) = stream.try_clone() else { continue };
        if threads.len() >= CONNECTIONS_MAX {
            continue;
        }
        lock(&state.open).insert(number, kept);
        let (shared, handler) = (state.clone(), handler.clone());
        let serving = std::thread::Builder::new().name("loopback".to_owned()).spawn(move || {
            // A client that goes away is none of our errors.
            let _ = serve(&stream, handler.as_ref());
            lock(&shared.open).remove(&number);
            let _ = stream.shutdown(Shutdown::Both);
        });
        match serving {
            Ok(thread) => threads.push(thread),
            Err(_) => drop(lock(&state.open).remove(&number)),
        }
    }
    for stream in lock(&state.open).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: &TcpStream, handler: &impl Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIME))?;
    let answered = match read_request(stream) {
        Ok(asked) => handler.answer(asked),
        Err(Refused(status)) => Answered { status, headers: Vec::new(), body: Body::Whole(Vec::new()) },
    };
    write_answer(stream, &answered)
}

/// The status of a request that cannot be read.
struct Refused(u16);

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Refused {
        Refused(408)
    }
}

fn read_request(mut stream: &TcpStream) -> Result<Asked, Refused> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 16 << 10];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Refused(431));
        }
        match stream.read(&mut piece)? {
            0 => return Err(Refused(400)),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    };
    let mut body = bytes.split_off(end + 4);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Refused(400))?;
    let mut asked = read_head(head).ok_or(Refused(400))?;
    if asked.header("transfer-encoding").is_some() {
        return Err(Refused(411));
    }
    let length = match asked.header("content-length") {
        Some(length) => length.parse::<usize>().map_err(|_| Refused(400))?,
        None => 0,
    };
    if length > REQUEST_BYTES_MAX {
        return Err(Refused(413));
    }
    if asked.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while body.len() < length {
        match stream.read(&mut piece)? {
            0 => return Err(Refused(400)),
            read => body.extend_from_slice(&piece[..read]),
        }
    }
    body.truncate(length);
    asked.body = body;
    Ok(asked)
}

fn read_head(head: &str) -> Option<Asked> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.map(header).collect::<Option<Vec<_>>>()?;
    Some(Asked { method: method.to_owned(), path: path.to_owned(), headers, body: Vec::new() })
}

fn write_answer(mut stream: &TcpStream, answered: &Answered) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} {}\r\nconnection: close\r\n", answered.status, reason(answered.status));
    for (name, value) in &answered.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &answered.body {
        Body::Silence => until_gone(stream),
        Body::Whole(body) => {
            head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
            gone_after(stream)
        }
        Body::Chunks(chunks, end) => {
            head.push_str("transfer-encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                let mut sent = format!("{:x}\r\n", chunk.len()).into_bytes();
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
                stream.write_all(&sent)?;
            }
            match end {
                End::Whole => stream.write_all(b"0\r\n\r\n").and_then(|()| gone_after(stream)),
                End::Cut => gone_after(stream),
                End::Silence => until_gone(stream),
            }
        }
    }
}

/// Says that nothing more comes and waits until the client has heard it: closing at once could lose what was sent.
fn gone_after(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    until_gone(stream)
}

/// Waits until the client goes away, or the server stops.
fn until_gone(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    let mut piece = [0; 4_096];
    while stream.read(&mut piece)? > 0 {}
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Server {
        Server::start(|asked: Asked| {
            let headers = vec![("x-path".to_owned(), asked.path.clone())];
            Answered { status: 200, headers, body: Body::Whole(asked.body) }
        })
        .expect("it listens")
    }

    /// What the server says to these bytes.
    fn said(server: &Server, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.write_all(bytes).expect("it is sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it is read");
        said
    }

    #[test]
    fn a_request_is_read_to_its_end_and_answered() {
        let server = echo();
        let said = said(&server, b"POST /v1/x?y HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("x-path: /v1/x?y\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\nhello"), "{said}");
        assert_eq!(server.connections(), 1);
        assert!(server.address().ip().is_loopback());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let server = echo();
        for (bytes, status) in [
            (&b"nonsense\r\n\r\n"[..], "400"),
            (b"GET / HTTP/2\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
            (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "400"),
            (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", "413"),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "411"),
        ] {
            let said = said(&server, bytes);
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        }
    }

    #[test]
    fn a_server_that_is_dropped_ends_the_silence_it_keeps() {
        let server = Server::start(|_: Asked| Answered { status: 200, headers: Vec::new(), body: Body::Silence });
        let server = server.expect("it listens");
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is sent");
        drop(server);
        let mut said = Vec::new();
        // Either nothing or an error: the connection is over.
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty());
    }
}
