//! How goals of speed are measured and told: each as a ratio of two things measured in one run, slice by slice in turn,
//! so that a machine whose speed drifts drifts under both.
#![forbid(unsafe_code)]

use std::time::Duration;

/// How often each side of a ratio is measured.
pub const SLICES: usize = 9;

/// Which side of a goal is good.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// For information.
    None,
}

/// Runs the areas that the command line names, or all of them.
pub fn run(areas: &[(&str, fn())]) {
    // `cargo bench` adds an option of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut due = areas.iter().filter(|(name, _)| named.is_empty() || named.iter().any(|word| word == name)).peekable();
    if due.peek().is_some() {
        println!("{:<84} {:>6} {:>8}", "", "ratio", "goal");
    }
    due.for_each(|(_, measure)| measure());
}

/// Times `ours` and `theirs` in turn and prints the median of the ratios.
pub fn ratio(what: &str, goal: Goal, mut ours: impl FnMut() -> Duration, mut theirs: impl FnMut() -> Duration) {
    ours();
    theirs();
    let mut ratios: Vec<f64> = (0..SLICES).map(|_| ours().as_secs_f64() / theirs().as_secs_f64()).collect();
    say(what, goal, median(&mut ratios));
}

/// Prints a ratio, and whether it is what it should be.
pub fn say(what: &str, goal: Goal, ratio: f64) {
    let (text, met) = match goal {
        Goal::AtMost(most) => (format!("<= {most}"), ratio <= most),
        Goal::AtLeast(least) => (format!(">= {least}"), ratio >= least),
        Goal::None => {
            println!("{what:<84} {ratio:>6.2}");
            return;
        }
    };
    println!("{what:<84} {ratio:>6.2} {text:>8}  {}", if met { "met" } else { "NOT MET" });
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
