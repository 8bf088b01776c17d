//! XML as STS answers in.

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// The answer of an operation.
pub(super) fn answer(action: &str, result: &str, trace: &str) -> String {
    let metadata = element("ResponseMetadata", &[text("RequestId", trace)]);
    format!(
        "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>{metadata}\
         </{action}Response>"
    )
}

/// The answer to what is refused.
pub(super) fn error(status: u16, code: &str, message: &str, trace: &str) -> String {
    let fault = if status < 500 { "Sender" } else { "Receiver" };
    let error =
        element("Error", &[text("Type", fault), text("Code", code), text("Message", message)]);
    let id = text("RequestId", trace);
    format!("<ErrorResponse xmlns=\"{NAMESPACE}\">{error}{id}</ErrorResponse>")
}

/// An element with others in it.
pub(super) fn element(name: &str, within: &[String]) -> String {
    format!("<{name}>{}</{name}>", within.concat())
}

/// An element with text in it.
pub(super) fn text(name: &str, text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML has no way to write them.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other if other.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    format!("<{name}>{escaped}</{name}>")
}
