//! `skein`: the command line.

fn main() {}
