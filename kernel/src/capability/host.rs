//! Hosts and the patterns over them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

use crate::denial::Code;

/// Bytes of a host name.
const HOST_BYTES_MAX: usize = 253;
/// Bytes of one label of a host name.
const LABEL_BYTES_MAX: usize = 63;

/// Which hosts are meant. Names and addresses never compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPat {
    /// One host by name: lower-case A-labels, no trailing dot.
    Name(HostName),
    /// `*.suffix`: every host with at least one more whole label.
    Below(HostName),
    /// The addresses that share the first `prefix` bits; a single address has all its bits.
    Net(Network),
}

/// A host name in the form in which it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(Box<str>);

/// A range of addresses whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl HostPat {
    /// Reads a host, `*.suffix`, an address or `address/prefix`.
    ///
    /// # Errors
    /// [`Code::BadHost`] for upper case, a trailing dot, characters outside A-labels, userinfo, ports, addresses in
    /// other than the canonical decimal or RFC 5952 form, IPv4 mapped into IPv6, and host bits behind a prefix.
    pub fn parse(text: &str) -> Result<HostPat, Code> {
        if let Some(suffix) = text.strip_prefix("*.") {
            return HostName::parse(suffix).map(HostPat::Below);
        }
        match text.split_once('/') {
            Some((address, prefix)) => Network::parse(address, prefix).map(HostPat::Net),
            None => HostPat::parse_exact(text),
        }
    }

    /// Reads one host, as a fact names it: a name or an address, no pattern.
    ///
    /// # Errors
    /// [`Code::BadHost`] as [`HostPat::parse`], and for patterns.
    pub fn parse_exact(text: &str) -> Result<HostPat, Code> {
        match parse_address(text) {
            Some(address) => Ok(HostPat::Net(Network { address, prefix: bits(address) })),
            None => HostName::parse(text).map(HostPat::Name),
        }
    }

    /// Whether every host that `narrow` means is meant by this pattern.
    pub fn covers(&self, narrow: &HostPat) -> bool {
        match (self, narrow) {
            (HostPat::Name(wide), HostPat::Name(host)) => host == wide,
            (HostPat::Below(wide), HostPat::Name(host)) => host.is_below(wide),
            (HostPat::Below(wide), HostPat::Below(host)) => host == wide || host.is_below(wide),
            (HostPat::Net(wide), HostPat::Net(net)) => wide.contains(net),
            (HostPat::Name(_), HostPat::Below(_) | HostPat::Net(_))
            | (HostPat::Below(_), HostPat::Net(_))
            | (HostPat::Net(_), HostPat::Name(_) | HostPat::Below(_)) => false,
        }
    }
}

impl fmt::Display for HostPat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPat::Name(name) => f.write_str(&name.0),
            HostPat::Below(suffix) => write!(f, "*.{}", suffix.0),
            HostPat::Net(Network { address, prefix }) if *prefix == bits(*address) => write!(f, "{address}"),
            HostPat::Net(Network { address, prefix }) => write!(f, "{address}/{prefix}"),
        }
    }
}

impl HostName {
    fn parse(text: &str) -> Result<HostName, Code> {
        // A last label of digits, or of hexadecimal after 0x, is how some resolvers write an address.
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        let fits = text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label) && !is_number;
        if fits { Ok(HostName(text.into())) } else { Err(Code::BadHost) }
    }

    fn is_below(&self, suffix: &HostName) -> bool {
        self.0.strip_suffix(&*suffix.0).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl Network {
    fn parse(address: &str, prefix: &str) -> Result<Network, Code> {
        let address = parse_address(address).ok_or(Code::BadHost)?;
        let canonical = prefix == "0" || prefix.bytes().next().is_some_and(|digit| (b'1'..=b'9').contains(&digit));
        let prefix: u8 = prefix.parse().map_err(|_| Code::BadHost)?;
        let network = Network { address, prefix };
        if !canonical || prefix > bits(address) || network.first_bits(address) != word(address) {
            return Err(Code::BadHost);
        }
        Ok(network)
    }

    fn contains(&self, narrow: &Network) -> bool {
        self.address.is_ipv4() == narrow.address.is_ipv4()
            && self.prefix <= narrow.prefix
            && self.first_bits(narrow.address) == word(self.address)
    }

    /// The address with all bits behind this prefix cleared, as a number.
    fn first_bits(&self, address: IpAddr) -> u128 {
        let behind = u32::from(bits(address)).saturating_sub(u32::from(self.prefix));
        word(address).checked_shr(behind).and_then(|top| top.checked_shl(behind)).unwrap_or(0)
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// An address in its one canonical form.
fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(IpAddr::V4(address));
    }
    let address = text.parse::<Ipv6Addr>().ok()?;
    let canonical = address.to_ipv4_mapped().is_none() && address.to_string() == text;
    canonical.then_some(IpAddr::V6(address))
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn word(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPat {
        HostPat::parse(text).expect(text)
    }

    #[test]
    fn a_suffix_covers_whole_labels_only() {
        let wide = host("*.example.com");
        assert!(wide.covers(&host("api.example.com")));
        assert!(wide.covers(&host("*.b.example.com")));
        assert!(wide.covers(&wide));
        for outside in ["api.example.com.evil.io", "evilexample.com", "example.com", "*.com", "10.0.0.1"] {
            assert!(!wide.covers(&host(outside)), "{outside}");
        }
    }

    #[test]
    fn a_network_covers_its_addresses() {
        assert!(host("10.0.0.0/8").covers(&host("10.1.2.3")));
        assert!(host("0.0.0.0/0").covers(&host("10.0.0.0/8")));
        assert!(host("2001:db8::/32").covers(&host("2001:db8:1::/48")));
        assert!(host("::/0").covers(&host("::1")));
        assert!(!host("10.0.0.0/8").covers(&host("11.0.0.1")));
        assert!(!host("10.0.0.0/9").covers(&host("10.0.0.0/8")));
        assert!(!host("0.0.0.0/0").covers(&host("::1")));
    }

    #[test]
    fn hosts_with_two_readings_are_refused() {
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A.example",
            "a@b",
            "a:80",
            "-a",
            "a-",
            "a_b",
            "ä.example",
            "*",
            "*.*",
            "*a.b",
            "a.*",
            "2130706433",
            "0x7f.1",
            "a.0x7f",
            "127.1",
            "0177.0.0.1",
            "127.0.0.01",
            "::ffff:1.2.3.4",
            "::FFFF",
            "0:0:0:0:0:0:0:1",
            "[::1]",
            "fe80::1%eth0",
            "10.0.0.1/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/33",
            "::/129",
            "a.example/8",
        ] {
            assert_eq!(HostPat::parse(text), Err(Code::BadHost), "{text}");
        }
    }

    #[test]
    fn a_pattern_prints_as_it_is_read() {
        for text in ["a", "*.b.c", "10.0.0.0/8", "0.0.0.0/0", "1.2.3.4", "::1", "2001:db8::/32", "xn--nxasmq6b.example"]
        {
            assert_eq!(host(text).to_string(), text);
        }
        assert_eq!(host("1.2.3.4/32").to_string(), "1.2.3.4");
    }
}
