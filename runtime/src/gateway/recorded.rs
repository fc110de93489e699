//! Answers from what was recorded. There is nothing in here that could open a connection: a request that was not
//! recorded is a miss, and never a live call.

use std::collections::BTreeMap;

use serde_json::Value;

use super::redact::Redactor;
use super::{Failure, Fault, Provider, Reply, Run, Wire};

/// One recorded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its lane.
    pub lane: String,
    /// Which request of the lane it was.
    pub ordinal: u64,
    /// The request as it was recorded, without secrets.
    pub body: Vec<u8>,
    /// How it ended.
    pub ended: Result<Reply, Failure>,
}

/// Answers from records.
#[derive(Debug)]
pub struct Recorded {
    records: Vec<Record>,
    /// By lane, ordinal and digest of the request; the last of equal ones.
    by_request: BTreeMap<(String, u64, [u8; 32]), usize>,
    redactor: Redactor,
}

impl Recorded {
    /// Answers from `records`. Requests are looked up as `redactor` leaves them, since they were recorded so.
    pub fn new(records: Vec<Record>, redactor: Redactor) -> Recorded {
        let key = |record: &Record| (record.lane.clone(), record.ordinal, digest(&record.body));
        let by_request = records.iter().enumerate().map(|(index, record)| (key(record), index)).collect();
        Recorded { records, by_request, redactor }
    }

    /// How many calls were recorded.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The recorded request that is most like one: of the same lane first, then of the nearest ordinal.
    fn nearest(&self, wire: &Wire) -> Option<&Record> {
        let far = |record: &&Record| (record.lane != wire.lane, record.ordinal.abs_diff(wire.ordinal));
        self.records.iter().min_by_key(far)
    }

    fn miss(&self, wire: &Wire, body: &[u8]) -> Failure {
        let what = format!("request {} of lane `{}` was not recorded", wire.ordinal, wire.lane);
        let detail = match self.nearest(wire) {
            None => format!("{what}, and nothing else was"),
            Some(near) => {
                let differs =
                    difference(&near.body, body).map_or("does not differ".to_owned(), |at| format!("differs {at}"));
                format!("{what}; the nearest, request {} of lane `{}`, {differs}", near.ordinal, near.lane)
            }
        };
        Failure::unsent(Fault::RecordedMiss, detail)
    }
}

impl Provider for Recorded {
    fn call(&self, wire: &Wire, _: &mut Run<'_>) -> Result<Reply, Failure> {
        let body = self.redactor.bytes(&wire.body);
        match self.by_request.get(&(wire.lane.clone(), wire.ordinal, digest(&body))) {
            Some(index) => self.records[*index].ended.clone(),
            None => Err(self.miss(wire, &body)),
        }
    }
}

fn digest(body: &[u8]) -> [u8; 32] {
    *blake3::hash(body).as_bytes()
}

/// Where two bodies differ first: at a JSON pointer, or at a byte where they say the same or are no JSON.
fn difference(recorded: &[u8], asked: &[u8]) -> Option<String> {
    let pair = (serde_json::from_slice::<Value>(recorded), serde_json::from_slice::<Value>(asked));
    if let (Ok(recorded), Ok(asked)) = pair
        && let Some(pointer) = first_pointer(&recorded, &asked)
    {
        return Some(format!("at `{pointer}`"));
    }
    let same = recorded.iter().zip(asked).take_while(|(a, b)| a == b).count();
    (recorded != asked).then(|| format!("at byte {same}"))
}

/// The JSON pointer of the first difference, members in the order of their names.
fn first_pointer(a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            names.into_iter().find_map(|name| {
                let below = below(a.get(name), b.get(name))?;
                Some(format!("/{}{below}", name.replace('~', "~0").replace('/', "~1")))
            })
        }
        (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).find_map(|index| {
            let below = below(a.get(index), b.get(index))?;
            Some(format!("/{index}{below}"))
        }),
        (a, b) => (a != b).then(String::new),
    }
}

fn below(a: Option<&Value>, b: Option<&Value>) -> Option<String> {
    match (a, b) {
        (Some(a), Some(b)) => first_pointer(a, b),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::json;

    use super::super::tests::{reply_of, with_run};
    use super::*;

    fn record(lane: &str, ordinal: u64, body: &Value) -> Record {
        let ended = Ok(reply_of(&format!("{lane} {ordinal}")));
        Record { lane: lane.to_owned(), ordinal, body: body.to_string().into_bytes(), ended }
    }

    fn asked(recorded: &Recorded, lane: &str, ordinal: u64, body: &str) -> Result<String, String> {
        let wire = Wire { lane: lane.to_owned(), ordinal, body: body.as_bytes().to_vec() };
        let ended = with_run(|run| recorded.call(&wire, run));
        ended.map(|reply| reply.text()).map_err(|failure| failure.to_string())
    }

    fn body(last: &str) -> Value {
        json!({ "model": "m", "messages": [{ "role": "user", "content": "a/b" }, { "role": "user", "content": last }] })
    }

    #[test]
    fn what_was_recorded_is_answered_again() {
        let records = vec![record("a", 0, &body("x")), record("a", 1, &body("y")), record("b", 0, &body("x"))];
        let recorded = Recorded::new(records, Redactor::default());
        assert_eq!((recorded.len(), recorded.is_empty()), (3, false));
        for (lane, ordinal, last) in [("a", 0, "x"), ("a", 1, "y"), ("b", 0, "x"), ("a", 0, "x")] {
            assert_eq!(asked(&recorded, lane, ordinal, &body(last).to_string()), Ok(format!("{lane} {ordinal}")));
        }
    }

    #[test]
    fn one_changed_byte_is_a_miss_that_says_where() {
        let recorded = Recorded::new(vec![record("a", 0, &body("x")), record("b", 5, &body("x"))], Redactor::default());
        let miss = |lane, ordinal, body: &str| asked(&recorded, lane, ordinal, body).expect_err("a miss");
        assert_eq!(
            miss("a", 0, &body("z").to_string()),
            "RECORDED_MISS: request 0 of lane `a` was not recorded; the nearest, request 0 of lane `a`, differs at \
             `/messages/1/content`"
        );
        assert!(miss("a", 3, &body("x").to_string()).ends_with("request 0 of lane `a`, does not differ"));
        assert!(miss("c", 4, &body("x").to_string()).contains("request 5 of lane `b`"));
        let spaced = body("x").to_string().replacen(':', ": ", 1);
        assert!(miss("a", 0, &spaced).contains("differs at byte "), "{}", miss("a", 0, &spaced));
        assert!(miss("a", 0, "no JSON").ends_with("differs at byte 0"));
        let longer = json!({ "model": "m", "messages": [], "a/b": { "c~": 1 } });
        assert!(miss("a", 0, &longer.to_string()).ends_with("differs at `/a~1b`"));
        let nothing = Recorded::new(Vec::new(), Redactor::default());
        assert!(asked(&nothing, "a", 0, "{}").expect_err("a miss").ends_with("and nothing else was"));
    }

    #[test]
    fn requests_are_looked_up_without_their_secrets() {
        let key = SecretString::from("sk-canary-0123");
        let redactor = Redactor::of([&key]);
        let with_key = body("my key is sk-canary-0123").to_string();
        let kept = serde_json::from_str(&redactor.text(&with_key)).expect("JSON");
        let recorded = Recorded::new(vec![record("a", 0, &kept)], redactor);
        assert_eq!(asked(&recorded, "a", 0, &with_key), Ok("a 0".to_owned()));
    }

    #[test]
    fn this_file_names_no_network() {
        let source = include_str!("recorded.rs");
        for name in [concat!("req", "west"), concat!("tokio", "::net"), concat!("std", "::net"), concat!("http", "::")]
        {
            assert!(!source.contains(name), "{name}");
        }
    }
}
