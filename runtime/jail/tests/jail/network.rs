//! Sockets: none that leads out.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use toka_jail::spec::Net;

use crate::attack::{landlock, strong};

#[test]
fn row_9_no_unix_socket_of_the_host_is_reached() {
    let name = format!("toka-jail-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("it is free");
    for net in [Net::None, Net::Loopback] {
        strong(
            r#"
import socket
def reach():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect("\0" + sys.argv[1])
refused("abstract socket", "EPERM", reach)
for kind in [1, 2, 5, 1 | 0o2000000, 2 | 0o4000]:
    refused(f"unix socket {kind}", "EPERM", lambda: raw(41, 1, kind, 0))
for kind in [2, 2 | 0o2000000, 3]:
    refused(f"pair {kind}", "EPERM", lambda: raw(53, 1, kind, 0, bytes(8)))
refused("pair of another family", "EPERM", lambda: raw(53, 30, 1, 0, bytes(8)))
"#,
            r#"
import socket
a, b = socket.socketpair(); a.send(b"hi"); assert b.recv(2) == b"hi"
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b"hi"); assert b.recv(9) == b"hi"
"#,
            &[&name],
            |plan| plan.spec.net = net,
        );
    }
}

#[test]
fn row_10_no_socket_speaks_to_the_kernel_or_the_wire() {
    for net in [Net::None, Net::Loopback] {
        strong(
            r#"
for family in [*range(1, 2), *range(3, 10), *range(11, 48)]:
    for kind in [1, 2, 3, 5]:
        refused(f"family {family} kind {kind}", "EPERM", lambda: raw(41, family, kind, 0))
for family in [2, 10]:
    for kind, protocol in [(3, 1), (3, 255), (5, 132), (1, 132), (1, 262), (2, 136), (2, 1), (1, 256), (3 | 0o2000000, 1)]:
        refused(f"{family} {kind} {protocol}", "EPERM", lambda: raw(41, family, kind, protocol))
refused("family with high bits", "EPERM EAFNOSUPPORT", lambda: raw(41, 16 | 1 << 32, 3, 0))
"#,
            if net == Net::None {
                "pass"
            } else {
                "import socket; socket.socket(); socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)"
            },
            &[],
            |plan| plan.spec.net = net,
        );
    }
}

#[test]
fn row_11_no_address_outside_is_reached() {
    let host = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = host.local_addr().expect("bound").port().to_string();
    let reach = r#"
import socket
port = int(sys.argv[1])
def tcp(address, to):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
        s.settimeout(5); s.connect((address, to))
def udp(address, to):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (address, to)); s.connect((address, to))
for address in ["127.0.0.1", "127.0.0.2", "1.1.1.1", "10.0.0.1", "169.254.169.254", "::1", "2606:4700::1111"]:
    refused("tcp " + address, NO, lambda: tcp(address, port))
for address in ["1.1.1.1", "10.0.0.1", "169.254.169.254", "255.255.255.255"]:
    refused("udp " + address, NO, lambda: udp(address, 53))
refused("names", "EPERM" if NO == "EPERM" else NO, lambda: udp("8.8.8.8", 53))
"#;
    let none = format!("NO = 'EPERM'\n{reach}");
    strong(&none, "pass", &[&port], |_| {});
    let loopback = format!("NO = 'ECONNREFUSED ENETUNREACH EACCES EADDRNOTAVAIL'\n{reach}");
    let benign = r#"
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
def answer():
    peer, _ = server.accept(); peer.sendall(b"hello"); peer.close()
thread = threading.Thread(target=answer); thread.start()
with socket.create_connection(server.getsockname()) as s:
    assert s.recv(5) == b"hello"
thread.join()
"#;
    strong(&loopback, benign, &[&port], |plan| plan.spec.net = Net::Loopback);
    host.set_nonblocking(true).expect("a socket");
    assert!(host.accept().is_err(), "somebody came through");
}

#[test]
fn rows_8_to_11_nobody_else_is_reached() {
    let name = format!("toka-landlock-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("it is free");
    landlock(
        r#"
import socket
for number, what in {101: "ptrace", 310: "process_vm_readv", 438: "pidfd_getfd", 312: "kcmp", 272: "unshare",
                     165: "mount", 161: "chroot", 308: "setns", 250: "keyctl", 321: "bpf", 298: "perf_event_open",
                     323: "userfaultfd", 319: "memfd_create", 164: "settimeofday", 169: "reboot"}.items():
    refused(what, "EPERM", lambda: raw(number, 0, 0, 0, 0, 0))
refused("io_uring_setup", "ENOSYS", lambda: raw(425, 1, bytes(120)))
for family in range(1, 48):
    for kind in [1, 2, 3, 5]:
        refused(f"socket {family} {kind}", "EPERM", lambda: raw(41, family, kind, 0))
refused("datagram pair", "EPERM", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
"#,
        "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'",
        &[&name],
        |_| {},
    );
}
