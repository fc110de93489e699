//! The laws of the capability grammar: order, meet, fill and text.

mod generate;
mod naive;
mod tables;
mod widen;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{TestCaseResult, TestRunner};
use toka_kernel::capability::{Capability, ExactName, Limits, NamePat, PathPat, Rate, RootPath, Scope};
use toka_kernel::denial::Dim;

use generate::{capability, related};
use naive::{covers, path_covers, request, scope_covers};

const CASES: u32 = 10_000;

/// Runs a law on 10,000 cases.
fn law<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    if let Err(failure) = TestRunner::new(config).run(&strategy, test) {
        panic!("{failure}");
    }
}

/// Counts how often the premise of a law held, so that no law is true for want of cases.
#[derive(Default)]
struct Hits(Cell<u32>);

impl Hits {
    fn when(&self, premise: bool) -> bool {
        self.0.set(self.0.get() + u32::from(premise));
        premise
    }

    fn at_least(&self, least: u32) {
        assert!(self.0.get() >= least, "the premise held {} times", self.0.get());
    }
}

#[test]
fn order_reflexive() {
    law(capability(), |c| {
        prop_assert_eq!(c.attenuates(&c), Ok(()));
        prop_assert_eq!(c.scope.within(&c.scope), Ok(()));
        Ok(())
    });
}

#[test]
fn order_transitive() {
    let hits = Hits::default();
    law(related(4), |all| {
        for (a, b, c) in triples(&all) {
            if hits.when(a.attenuates(b).is_ok() && b.attenuates(c).is_ok() && a != b && b != c) {
                prop_assert_eq!(a.attenuates(c), Ok(()), "{} ⊑ {} ⊑ {}", a, b, c);
            }
            if a.scope.within(&b.scope).is_ok() && b.scope.within(&c.scope).is_ok() {
                prop_assert_eq!(a.scope.within(&c.scope), Ok(()), "{} ⊑ {} ⊑ {}", a, b, c);
            }
        }
        Ok(())
    });
    hits.at_least(CASES / 10);
}

#[test]
fn order_antisymmetric() {
    let hits = Hits::default();
    law(related(3), |all| {
        for (a, b) in pairs(&all) {
            if hits.when(a.attenuates(b).is_ok() && b.attenuates(a).is_ok()) {
                let b = Capability { use_: a.use_, depth: a.depth, ..b.clone() };
                prop_assert_eq!(a, &b);
                prop_assert_eq!(a.to_string(), b.to_string());
            }
        }
        Ok(())
    });
    hits.at_least(CASES);
}

#[test]
fn order_sound() {
    let hits = Hits::default();
    law((related(3), request()), |(all, request)| {
        for (c, p) in pairs(&all) {
            if c.attenuates(p).is_ok() && covers(c, &request) {
                prop_assert!(covers(p, &request), "{} ⊑ {}", c, p);
            }
            if c != p && hits.when(c.scope.within(&p.scope).is_ok() && scope_covers(&c.scope, &request.what)) {
                prop_assert!(scope_covers(&p.scope, &request.what), "{} ⊑ {}", c, p);
            }
        }
        Ok(())
    });
    hits.at_least(CASES / 50);
}

/// The rows beside the scope, with requests that the scope always lets through.
#[test]
fn order_sound_in_limits() {
    let hits = Hits::default();
    law((related(3), request()), |(all, request)| {
        let any = Scope::parse("agent:*").expect("scope");
        let what = naive::What::Agent { spec: "a".to_owned(), live: 1 };
        let request = naive::Request { what, ..request };
        for (c, p) in pairs(&all) {
            let (c, p) =
                (Capability { scope: any.clone(), ..c.clone() }, Capability { scope: any.clone(), ..p.clone() });
            if c != p && hits.when(c.attenuates(&p).is_ok() && covers(&c, &request)) {
                prop_assert!(covers(&p, &request), "{} ⊑ {}", c, p);
            }
        }
        Ok(())
    });
    hits.at_least(CASES / 50);
}

#[test]
fn order_complete_paths_names() {
    let words = |longest: usize| {
        let mut all: Vec<Vec<&str>> = vec![vec![]];
        for begin in 0.. {
            let Some(word) = all.get(begin).filter(|word| word.len() < longest).cloned() else { break };
            all.extend(["a", "ab", "b"].map(|segment| [&word[..], &[segment]].concat()));
        }
        all
    };
    let mut paths = Vec::new();
    for (root, word) in ["r", "rr"].iter().flat_map(|root| words(3).into_iter().map(move |word| (root, word))) {
        let path = RootPath::parse_fact(&format!("{root}:{}", word.join("/"))).expect("path");
        paths.extend([PathPat::exact(path.clone()), PathPat::under(path)]);
    }
    let files: Vec<(&str, Vec<String>)> = ["r", "rr"]
        .into_iter()
        .flat_map(|root| {
            words(4).into_iter().map(move |word| (root, word.iter().map(|seg| (*seg).to_owned()).collect()))
        })
        .collect();
    let covered: Vec<Vec<bool>> =
        paths.iter().map(|path| files.iter().map(|(root, file)| path_covers(path, root, file)).collect()).collect();
    check_complete(&paths, &covered, |narrow, wide| wide.covers(narrow));

    let exact = |word: &Vec<&str>| ExactName::parse(&word.join(".")).expect("name");
    let mut names = vec![NamePat::Any];
    for word in words(3).iter().filter(|word| !word.is_empty()) {
        names.extend([NamePat::Exact(exact(word)), NamePat::Below(exact(word))]);
    }
    let tools: Vec<String> = words(4).iter().filter(|word| !word.is_empty()).map(|word| word.join(".")).collect();
    let covered: Vec<Vec<bool>> =
        names.iter().map(|name| tools.iter().map(|tool| naive::name_covers(name, tool)).collect()).collect();
    check_complete(&names, &covered, |narrow, wide| wide.covers(narrow));
}

/// The order says yes exactly where each thing that the one covers is covered by the other.
fn check_complete<T: std::fmt::Debug>(patterns: &[T], covered: &[Vec<bool>], within: impl Fn(&T, &T) -> bool) {
    for (narrow, below) in patterns.iter().zip(covered) {
        for (wide, above) in patterns.iter().zip(covered) {
            let subset = below.iter().zip(above).all(|(below, above)| !below || *above);
            assert_eq!(within(narrow, wide), subset, "{narrow:?} ⊑ {wide:?}");
        }
    }
}

#[test]
fn widen_breaks_order() {
    let seen = RefCell::new(BTreeSet::new());
    law((capability(), any::<Index>(), any::<bool>()), |(mut parent, which, drop)| {
        // With each row set there is something to widen in each.
        parent.limits.amounts = parent.limits.amounts.map(|amount| amount.or(Some(7)));
        parent.limits.rate = parent.limits.rate.or(Rate::new(5, 5));
        parent.nbf_us = parent.nbf_us.or(Some(0));
        parent.exp_us = parent.exp_us.or(Some(toka_kernel::limits::TIME_US_MAX));
        parent.gates.insert(ExactName::parse("approval").expect("gate"));
        let widenings = widen::widenings(&parent, drop);
        let (child, dim) = which.get(&widenings);
        prop_assert_eq!(child.attenuates(&parent), Err(*dim), "{} ⊑ {}", child, parent);
        prop_assert_eq!(parent.attenuates(&parent), Ok(()));
        seen.borrow_mut().insert(*dim);
        Ok(())
    });
    let scope_dims = [
        Dim::Kind,
        Dim::Root,
        Dim::Name,
        Dim::Path,
        Dim::Ops,
        Dim::Admin,
        Dim::Digest,
        Dim::Args,
        Dim::Closed,
        Dim::Live,
    ];
    let dims = scope_dims.into_iter().chain(Limits::DIMS).chain([Dim::Rate, Dim::Time, Dim::Gates]);
    assert_eq!(seen.into_inner(), dims.collect());
}

#[test]
fn meet_exact() {
    let (hits, bottoms) = (Hits::default(), Hits::default());
    law(related(4), |all| {
        for (r, a, b) in triples(&all) {
            let both = r.attenuates(a).is_ok() && r.attenuates(b).is_ok();
            let under_meet = a.meet(b).is_some_and(|met| r.attenuates(&met).is_ok());
            prop_assert_eq!(under_meet, both, "r = {}, a = {}, b = {}", r, a, b);
            hits.when(both && a != b && r != a && r != b);
            bottoms.when(a.meet(b).is_none());
            let both = r.scope.within(&a.scope).is_ok() && r.scope.within(&b.scope).is_ok();
            let under_meet = a.scope.meet(&b.scope).is_some_and(|met| r.scope.within(&met).is_ok());
            prop_assert_eq!(under_meet, both, "scopes of r = {}, a = {}, b = {}", r, a, b);
        }
        Ok(())
    });
    hits.at_least(CASES / 10);
    bottoms.at_least(CASES / 10);
}

#[test]
fn meet_greatest() {
    let hits = Hits::default();
    law(related(3), |all| {
        for (a, b) in pairs(&all) {
            let met = a.meet(b);
            prop_assert_eq!(&met, &b.meet(a));
            if a.attenuates(b).is_ok() {
                let depth = a.depth.min(b.depth);
                prop_assert_eq!(&met, &Some(Capability { use_: a.use_.min(b.use_), depth, ..a.clone() }));
            }
            if let Some(met) = met.filter(|_| hits.when(a != b)) {
                prop_assert_eq!(met.attenuates(a), Ok(()));
                prop_assert_eq!(met.attenuates(b), Ok(()));
                prop_assert!(met.use_ <= a.use_ && met.use_ <= b.use_ && met.depth <= a.depth && met.depth <= b.depth);
                prop_assert_eq!(Capability::parse(&met.to_string()), Ok(met));
            }
        }
        Ok(())
    });
    hits.at_least(CASES / 10);
}

#[test]
fn overlap_symmetric() {
    let hits = Hits::default();
    law((related(3), naive::what()), |(all, what)| {
        for (a, b) in pairs(&all) {
            let overlaps = a.overlaps(b);
            prop_assert_eq!(overlaps, b.overlaps(a));
            prop_assert_eq!(overlaps, a.scope.meet(&b.scope).is_some(), "{} and {}", a, b);
            if a != b && hits.when(scope_covers(&a.scope, &what) && scope_covers(&b.scope, &what)) {
                prop_assert!(overlaps, "{} and {}", a, b);
            }
        }
        Ok(())
    });
    hits.at_least(CASES / 50);
}

#[test]
fn fill_narrows() {
    let hits = Hits::default();
    law((related(3), any::<u16>()), |(all, dropped)| {
        for (c, p) in pairs(&all) {
            let mut filled = c.clone();
            filled.fill_from(p);
            let valid = filled.exp_us.is_none_or(|exp| filled.nbf_us.unwrap_or(0) < exp);
            prop_assert_eq!(filled.attenuates(c), if valid { Ok(()) } else { Err(Dim::Time) });
            if hits.when(c.attenuates(p).is_ok() && c != p) {
                let mut child = c.clone();
                forget(&mut child, dropped);
                child.fill_from(p);
                prop_assert_eq!(child.attenuates(p), Ok(()), "{} filled from {}", child, p);
            }
        }
        Ok(())
    });
    hits.at_least(CASES / 10);
}

#[test]
fn fill_idempotent() {
    law(related(2), |all| {
        for (c, p) in pairs(&all) {
            let mut once = c.clone();
            once.fill_from(p);
            let mut twice = once.clone();
            twice.fill_from(p);
            prop_assert_eq!(&once, &twice);
            prop_assert_eq!((once.use_, once.depth, &once.gates), (c.use_, c.depth, &c.gates));
        }
        Ok(())
    });
}

/// Drops what filling brings back.
fn forget(child: &mut Capability, dropped: u16) {
    for (bit, amount) in child.limits.amounts.iter_mut().enumerate() {
        *amount = amount.filter(|_| dropped >> bit & 1 == 0);
    }
    child.limits.rate = child.limits.rate.filter(|_| dropped >> 7 & 1 == 0);
    child.nbf_us = child.nbf_us.filter(|_| dropped >> 8 & 1 == 0);
    child.exp_us = child.exp_us.filter(|_| dropped >> 9 & 1 == 0);
    if let Scope::Agent(agent) = &mut child.scope {
        agent.live = agent.live.filter(|_| dropped >> 10 & 1 == 0);
    }
}

#[test]
fn text_round_trip() {
    law(prop_oneof![capability().boxed(), generate::wild_capability().boxed()], |c| {
        let text = c.to_string();
        prop_assert_eq!(Capability::parse(&text), Ok(c.clone()), "{}", text);
        prop_assert_eq!(Scope::parse(&c.scope.to_string()), Ok(c.scope.clone()));
        prop_assert_eq!(rmp_serde::to_vec(&c).ok(), rmp_serde::to_vec(&text).ok());
        prop_assert_eq!(decode(&text), Some(c));
        let is_visible = text.chars().all(|c| !c.is_control() && c != '\u{202e}');
        prop_assert!(is_visible, "{:?}", text);
        Ok(())
    });
}

#[test]
fn text_total() {
    let token = select(vec![
        "fs:",
        "tool:",
        "agent:",
        "model:",
        "r",
        "/",
        "**",
        "*",
        "..",
        ".",
        "a",
        "#",
        "read",
        "delete",
        ",",
        "?",
        "&",
        "=",
        "use",
        "depth",
        "digest",
        "arg.",
        "/x",
        "closed",
        "live",
        "calls",
        "rate",
        "nbf",
        "exp",
        "gate",
        "1",
        "-1",
        "1_0",
        "5KB",
        "never",
        "+30m",
        "absent",
        "path:",
        "host:",
        "len<=",
        "|",
        "\"",
        "\\",
        "\\u{",
        "}",
        "{",
        "{/x}",
        "\u{202e}",
        "ä",
        "\0",
        "true",
        "18446744073709551616",
        "yes",
    ]);
    let soup = vec(token, 0..24).prop_map(|tokens| tokens.concat());
    let mutated = (generate::wild_capability(), any::<Index>(), any::<Option<char>>(), any::<bool>()).prop_map(
        |(capability, at, put, remove)| {
            let mut chars: Vec<char> = capability.to_string().chars().collect();
            let at = at.index(chars.len());
            let end = at + usize::from(remove);
            chars.splice(at..end, put);
            chars.into_iter().collect()
        },
    );
    law(prop_oneof!["(?s:.){0,64}".boxed(), soup.boxed(), mutated.boxed()], |text| {
        match Capability::parse_at(&text, 1) {
            Ok(capability) => prop_assert_eq!(Capability::parse(&capability.to_string()), Ok(capability)),
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.at), "{} in {:?}", error, text);
                prop_assert!(!error.hint.is_empty());
            }
        }
        Ok(())
    });
}

#[test]
fn decode_bounded() {
    let count = |bound: usize| select(vec![1, 2, bound - 1, bound, bound + 1, 2 * bound + 1]);
    let counts = (count(32), count(64), count(16), count(8), count(256));
    law((counts, 0..4u8), |((args, values, digests, gates, bytes), which)| {
        let list = |count: usize, item: &dyn Fn(usize) -> String, separator: &str| {
            (0..count).map(item).collect::<Vec<_>>().join(separator)
        };
        let (text, fits) = match which {
            0 => (format!("tool:a?{}", list(args, &|n| format!("arg./{n}=1"), "&")), args <= 32),
            1 => (format!("tool:a?arg./a={}", list(values, &|n| n.to_string(), "|")), values <= 64),
            2 => (format!("tool:a?digest={}", list(digests, &|n| format!("{n:064x}"), ",")), digests <= 16),
            _ => {
                let string = "s".repeat(bytes);
                let gates_text = list(gates, &|n| format!("g{n}"), ",");
                (format!("tool:a?arg./a=\"{string}\"&gate={gates_text}"), gates <= 8 && bytes <= 256)
            }
        };
        prop_assert_eq!(decode(&text).is_some(), fits, "{}", text);
        Ok(())
    });
    assert!(decode(&path_text(4_096)).is_some());
    assert!(decode(&path_text(4_097)).is_none());
    assert!(Capability::parse(&path_text(4_097)).is_ok());
    let sugar = format!("fs:r/\"{}\"#read", "\\u{000061}".repeat(250));
    assert!(decode(&sugar).is_some(), "only the canonical text counts");
    let longest = |bytes: usize| Capability::parse(&" ".repeat(bytes)).map_err(|error| error.at);
    assert_eq!((longest(8_192), longest(8_193)), (Err(0), Err(8_192)));
}

/// A capability of exactly so many bytes, within every other bound.
fn path_text(bytes: usize) -> String {
    let mut text = "fs:r".to_owned();
    let end = bytes - "#read".len();
    while text.len() < end {
        let room = (end - text.len() - 1).min(250);
        text.push('/');
        text.push_str(&"s".repeat(room));
    }
    text + "#read"
}

/// As a body holds it.
fn decode(text: &str) -> Option<Capability> {
    rmp_serde::from_slice(&rmp_serde::to_vec(text).expect("text")).ok()
}

fn pairs(all: &[Capability]) -> impl Iterator<Item = (&Capability, &Capability)> {
    all.iter().flat_map(move |a| all.iter().map(move |b| (a, b)))
}

fn triples(all: &[Capability]) -> impl Iterator<Item = (&Capability, &Capability, &Capability)> {
    pairs(all).flat_map(move |(a, b)| all.iter().map(move |c| (a, b, c)))
}
