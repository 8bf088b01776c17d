//! Mutational fuzzing on stable Rust, for the `tests/fuzz.rs` of any crate.
//!
//! A test includes it with `#[path = "../../fuzz.rs"] mod fuzz;` and calls [`run`] per target: first
//! every file of the target's corpus is replayed, then seeds and corpus are mutated from a fixed seed.
//! `FUZZ_ITERATIONS` (default 20,000) and `FUZZ_SEED` (default 1) choose how much and what.
//! It knows nothing of coverage; an input that failed once is kept as a file in the corpus.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::{env, fs};

/// Inputs grow to this, or to the largest seed when that is longer.
const MAX_BYTES: usize = 4096;
/// Mutants kept beside the seeds, so that changes add up over many iterations.
const MUTANTS: usize = 256;

/// Numbers at which parsers change their mind.
const INTERESTING: [u64; 18] = [
    0,
    1,
    4,
    16,
    31,
    32,
    125,
    126,
    127,
    128,
    255,
    256,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Runs `target` over the files of `corpus_dir`, the `seeds` and mutants of both. `f` panics when an
/// invariant is broken; the input that did it is printed as hex before the panic goes on.
///
/// `corpus_dir` is `concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/<target>")`; it need not exist.
pub(crate) fn run(target: &str, corpus_dir: &str, seeds: &[&[u8]], f: impl Fn(&[u8])) {
    let mut pool: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    for (name, bytes) in corpus(Path::new(corpus_dir)) {
        check(target, &format!("corpus file {name}"), &bytes, &f);
        pool.push(bytes);
    }
    for seed in seeds {
        check(target, "seed", seed, &f);
    }
    check(target, "empty input", &[], &f);
    if pool.is_empty() {
        pool.push(Vec::new());
    }

    let seed = number("FUZZ_SEED", 1);
    let fixed = pool.len();
    let limit = pool.iter().map(Vec::len).max().unwrap_or(0).max(MAX_BYTES);
    let mut random = Random::new(seed, target);
    for iteration in 0..number("FUZZ_ITERATIONS", 20_000) {
        // Half of the inputs come fresh from a seed: mutants of mutants wear out.
        let from = if random.below(2) == 0 { fixed } else { pool.len() };
        let mut input = pool[random.below(from)].clone();
        // Parsers of text look no further than the first byte that is none, so most text stays text.
        let is_text = random.below(8) > 0 && is_text(&input);
        for _ in 0..1 + random.below(5) {
            let other = random.below(pool.len());
            mutate(&mut input, &pool[other], is_text, &mut random);
        }
        input.truncate(limit);
        if is_text {
            input = String::from_utf8_lossy(&input).into_owned().into_bytes();
        }
        check(target, &format!("FUZZ_SEED={seed}, iteration {iteration}"), &input, &f);
        if random.below(32) == 0 {
            match pool.len() - fixed {
                MUTANTS.. => pool[fixed + random.below(MUTANTS)] = input,
                _ => pool.push(input),
            }
        }
    }
}

/// The files of a corpus in a stable order, so that a seed means the same everywhere.
fn corpus(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("corpus is readable").path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    let read = |path: &Path| fs::read(path).expect("corpus is readable");
    paths.iter().map(|path| (path.display().to_string(), read(path))).collect()
}

fn check(target: &str, origin: &str, input: &[u8], f: &impl Fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("fuzz target {target} failed ({origin}) on {} bytes: {hex}", input.len());
        resume_unwind(panic);
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
        Err(_) => default,
    }
}

/// Tells text from packets: those hold lengths, and so bytes that no text has.
fn is_text(input: &[u8]) -> bool {
    str::from_utf8(input).is_ok() && input.iter().all(|byte| *byte >= b'\t')
}

/// One small change; `other` is where splices come from.
fn mutate(input: &mut Vec<u8>, other: &[u8], is_text: bool, random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(11) {
        0 => flip_bit(input, random),
        1 => overwrite(input, at, &random_bytes(1, other, random)),
        2 => input.truncate(at),
        3 => drop(input.splice(at..at, random_bytes(8, other, random))),
        4 => drop(input.drain(random_range(input.len(), random))),
        5 => drop(input.splice(at.., other[random.below(other.len() + 1)..].iter().copied())),
        6 => drop(input.splice(at..at, other[random_range(other.len(), random)].to_vec())),
        7 => repeat(input, random),
        8 if is_text => swap(input, random),
        8 => overwrite(input, at, &interesting(is_text, random)),
        9 => drop(input.splice(at..at, interesting(is_text, random))),
        _ => swap(input, random),
    }
}

fn flip_bit(input: &mut [u8], random: &mut Random) {
    if !input.is_empty() {
        let at = random.below(input.len());
        input[at] ^= 1 << random.below(8);
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    input[at..].iter_mut().zip(bytes).for_each(|(old, new)| *old = *new);
}

/// Writes a piece of the input several times over: deep nesting and long lists.
fn repeat(input: &mut Vec<u8>, random: &mut Random) {
    let range = random_range(input.len(), random);
    let piece = input[range.clone()].repeat(1 + random.below(16));
    input.splice(range.end..range.end, piece);
    input.truncate(16 * MAX_BYTES);
}

/// Exchanges two neighbouring pieces.
fn swap(input: &mut [u8], random: &mut Random) {
    let range = random_range(input.len(), random);
    let middle = random.below(range.len() + 1);
    input[range].rotate_left(middle);
}

/// Up to `most` bytes; half of them are of the kind that other inputs are made of.
fn random_bytes(most: usize, other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut byte = || match random.below(2) {
        0 if !other.is_empty() => other[random.below(other.len())],
        _ => random.next() as u8,
    };
    let bytes = std::array::from_fn::<u8, 8, _>(|_| byte());
    bytes[..1 + random.below(most)].to_vec()
}

fn random_range(len: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(len + 1);
    let most = (len - start).min(64);
    start..start + random.below(most + 1)
}

/// An interesting number, or one beside it: in digits, or as one to eight bytes in either order.
fn interesting(is_text: bool, random: &mut Random) -> Vec<u8> {
    let number = INTERESTING[random.below(INTERESTING.len())];
    let number = number.wrapping_add(random.below(3) as u64).wrapping_sub(1);
    if is_text {
        let sign = if random.below(4) == 0 { "-" } else { "" };
        return format!("{sign}{number}").into_bytes();
    }
    let width = 1 << random.below(4);
    let mut bytes = number.to_le_bytes()[..width].to_vec();
    if random.below(3) > 0 {
        bytes.reverse();
    }
    bytes
}

/// xorshift64*: enough chance for mutations, and the same on every machine.
struct Random(u64);

impl Random {
    /// The target's name is part of the seed, so that targets do not walk in step.
    fn new(seed: u64, target: &str) -> Self {
        let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(target.bytes().chain(seed.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, mix) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 11) % bound as u64) as usize
    }
}
