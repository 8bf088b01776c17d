//! SPDX licence expressions, as far as deciding needs: `MIT OR (Apache-2.0 WITH x AND Zlib)`.

use anyhow::{Result, bail};

/// Whether an expression can be satisfied with the allowed licences alone.
pub(crate) fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    // Old manifests write `MIT/Apache-2.0` and mean OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let verdict = any(&mut rest, allowed)?;
    match rest {
        [] => Ok(verdict),
        [word, ..] => bail!("unexpected `{word}` in the licence `{expression}`"),
    }
}

fn any(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let mut verdict = all(words, allowed)?;
    while take(words, "OR") {
        verdict |= all(words, allowed)?;
    }
    Ok(verdict)
}

fn all(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let mut verdict = one(words, allowed)?;
    while take(words, "AND") {
        verdict &= one(words, allowed)?;
    }
    Ok(verdict)
}

fn one(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    if take(words, "(") {
        let verdict = any(words, allowed)?;
        if !take(words, ")") {
            bail!("a parenthesis is not closed");
        }
        return Ok(verdict);
    }
    let Some((name, rest)) = words.split_first() else { bail!("the expression breaks off") };
    *words = rest;
    if take(words, "WITH") {
        let Some((exception, rest)) = words.split_first() else { bail!("WITH names nothing") };
        *words = rest;
        return Ok(allowed(&format!("{name} WITH {exception}")) || allowed(name));
    }
    Ok(allowed(name))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == word => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides() {
        let allowed = |name: &str| ["MIT", "Apache-2.0", "BSD-3-Clause"].contains(&name);
        let table = [
            ("MIT", Some(true)),
            ("GPL-3.0", Some(false)),
            ("MIT OR GPL-3.0", Some(true)),
            ("MIT AND GPL-3.0", Some(false)),
            ("GPL-3.0/MIT", Some(true)),
            ("(MIT OR GPL-3.0) AND BSD-3-Clause", Some(true)),
            ("GPL-3.0 OR (MIT AND ISC)", Some(false)),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", Some(true)),
            ("(MIT", None),
            ("MIT MIT", None),
            ("", None),
        ];
        for (expression, verdict) in table {
            assert_eq!(satisfied(expression, &allowed).ok(), verdict, "{expression}");
        }
    }
}
