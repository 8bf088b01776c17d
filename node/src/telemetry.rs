//! Logs and traces of the process.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use anyhow::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context as TraceContext, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::field::Field;
use tracing::{Level, Metadata, warn};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogFormat, Traces as TracesConfig};

/// What is logged; can be changed while the node runs. Errors always are, and warnings, but those of
/// rustls.
#[derive(Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// The filter now.
    pub fn get(&self) -> String {
        // Only a process that has no logs any more has lost its filter.
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Replaces it until the next start; an error leaves it as it is.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        let parsed = parse_filter(filter).map_err(anyhow::Error::msg)?;
        self.0.reload(parsed).context("there is no log")?;
        // A warning, because it must be seen whatever the filter is.
        warn!(filter = self.get(), "what is logged has changed");
        Ok(())
    }
}

/// Reads a filter: levels and `target=level`, with commas between them. Without a level of its own,
/// what no target names is logged from warnings on. An error says what is wrong, in words.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    let refused = |why: &str| {
        format!("{filter:?} is not a filter like \"info\" or \"info,node=debug\": {why}")
    };
    let directives = || filter.split(',').map(str::trim).filter(|it| !it.is_empty());
    let is_level = |directive: &str| directive.parse::<LevelFilter>().is_ok();
    // Otherwise a misspelt level would be the name of a target.
    if let Some(odd) = directives().find(|it| !is_level(it) && !it.contains(['=', '['])) {
        return Err(refused(&format!(
            "{odd:?} is neither target=level nor one of off, error, warn, info, debug and trace"
        )));
    }
    let filter: Vec<&str> = match directives().any(is_level) {
        true => directives().collect(),
        false => ["warn"].into_iter().chain(directives()).collect(),
    };
    EnvFilter::try_new(filter.join(",")).map_err(|error| refused(&error.to_string()))
}

/// Installs logs for the process.
pub fn install_log(log: &Log) -> anyhow::Result<LogFilter> {
    let filter =
        parse_filter(&log.filter).map_err(|problem| anyhow::anyhow!("log.filter: {problem}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let colours = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours);
    let lines = match log.format {
        LogFormat::Human => lines.with_target(false).fmt_fields(escaped_fields()).boxed(),
        LogFormat::Json => {
            let lines = lines.with_writer(|| EscapedJson(io::stderr()));
            lines.json().flatten_event(true).boxed()
        }
    };
    let filter = filter.or(LevelFilter::WARN).and(filter_fn(|it| !is_of_clients(it)));
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(LogFilter(handle))
}

/// Fields of an event as people read them. What clients have said may be among them: it begins no line, and
/// commands no terminal.
fn escaped_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        match field.name() {
            // What the `log` crate says of where it was written.
            name if name.starts_with("log.") => return Ok(()),
            "message" => {}
            name => write!(writer, "{name}=")?,
        }
        write!(Escaping(writer), "{value:?}")
    };
    debug_fn(field).delimited(" ")
}

/// Whether a character does something to the text around it: ends its line, or turns its direction.
fn commands(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}')
}

/// Writes such characters as escapes.
struct Escaping<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(commands) {
            let (before, after) = rest.split_at(at);
            let control = after.chars().next().expect("it was found");
            write!(self.0, "{before}{}", control.escape_default())?;
            rest = &after[control.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Passes lines of JSON on, with such characters as escapes where JSON would not have it so: some terminals
/// obey them, and some readers end lines at them.
struct EscapedJson<W>(W);

impl<W: io::Write> io::Write for EscapedJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let odd = |character: char| character >= '\u{7f}' && commands(character);
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(odd) => {
                let mut escaped = String::with_capacity(line.len() + 16);
                for character in text.chars() {
                    match odd(character) {
                        true => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
                        false => escaped.push(character),
                    }
                }
                self.0.write_all(escaped.as_bytes())?;
            }
            _ => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether it is a warning that any client can have written as often as it likes: rustls has one for
/// every connection to an IP address.
fn is_of_clients(written: &Metadata<'_>) -> bool {
    *written.level() == Level::WARN && written.target().starts_with("rustls")
}

/// Traces of publications over OTLP. What is exported late is dropped by the exporter's own bounded
/// queue, never waited for.
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// One in so many publications starts a trace; 0 for none.
    every: u64,
}

impl Traces {
    /// Exports to the configured collector; `None` when there is none. Must be called inside the
    /// runtime that exports.
    pub fn start(config: &TracesConfig) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("traces.endpoint {endpoint:?} cannot be used"))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name("skein").build())
            .build();
        let tracer = provider.tracer("skein");
        let every = if config.ratio > 0.0 { (1.0 / config.ratio).round() as u64 } else { 0 };
        Ok(Some(Self { tracer, provider, every }))
    }

    /// Starts the span of a publication, if it is traced: the `count`-th one of its core, or one
    /// whose `traceparent` user property says that it is sampled.
    pub fn publication(
        &self,
        count: u64,
        properties: &[u8],
        topic: &str,
        qos: mqtt::QoS,
    ) -> Option<impl Span + use<>> {
        let parent = (!properties.is_empty()).then(|| mqtt::properties::traceparent(properties));
        let parent = match parent.flatten().map(context_of) {
            Some(context) if context.span().span_context().is_valid() => {
                context.span().span_context().is_sampled().then_some(context)?
            }
            _ if self.every > 0 && count.is_multiple_of(self.every) => TraceContext::new(),
            _ => return None,
        };
        let builder = SpanBuilder::from_name("publish").with_kind(SpanKind::Consumer);
        let mut span = self.tracer.build_with_context(builder, &parent);
        span.set_attribute(KeyValue::new("messaging.system", "mqtt"));
        span.set_attribute(KeyValue::new("messaging.destination.name", topic.to_owned()));
        span.set_attribute(KeyValue::new("messaging.mqtt.qos", i64::from(qos as u8)));
        Some(span)
    }

    /// Exports what is left.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown() {
            warn!(%error, "the last traces could not be exported");
        }
    }
}

/// Ends a publication's span with what came of it.
pub fn end_span(span: Option<impl Span>, takers: u16, reached: bool) {
    let Some(mut span) = span else { return };
    span.set_attribute(KeyValue::new("skein.takers", i64::from(takers)));
    if !reached && takers == 0 {
        span.set_status(Status::error("no subscriber"));
    }
    span.end();
}

fn context_of(traceparent: &str) -> TraceContext {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&TraceContext::new(), &carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_a_level_for_what_no_target_names() {
        for (filter, said) in [
            ("info", Ok("info")),
            ("", Ok("warn")),
            (" , ", Ok("warn")),
            ("node=debug", Ok("node=debug,warn")),
            ("off", Ok("off")),
            ("inof", Err("\"inof\" is neither target=level nor one of")),
            ("node=loud", Err("error parsing level filter")),
        ] {
            match (parse_filter(filter), said) {
                (Ok(parsed), Ok(said)) => assert_eq!(parsed.to_string(), said, "{filter:?}"),
                (Err(error), Err(said)) => {
                    assert!(error.contains(said), "{filter:?}: {error}");
                    assert_eq!(error.matches(said).count(), 1, "{filter:?}: {error}");
                }
                (parsed, _) => panic!("{filter:?}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn a_traceparent_is_continued() {
        let context = context_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let span = context.span();
        assert!(span.span_context().is_sampled());
        let id = span.span_context().trace_id().to_string();
        assert_eq!(id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!context_of("nonsense").span().span_context().is_valid());
    }

    #[test]
    fn what_clients_say_begins_no_line() {
        let mut text = String::new();
        Escaping(&mut text).write_str("a\n2026 FAKE \u{1b}[31m \u{202e} ünî").unwrap();
        assert_eq!(text, "a\\n2026 FAKE \\u{1b}[31m \\u{202e} ünî");

        let said = "a\n\u{9b}31m \u{7f}\u{85}\u{2028}\u{202e}\u{61c} ünî \u{1f600}";
        let line = serde_json::to_string(said).unwrap();
        let mut written = Vec::new();
        let mut escaped = EscapedJson(&mut written);
        io::Write::write_all(&mut escaped, line.as_bytes()).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(!written.contains(commands), "{written:?}");
        assert!(written.contains("ünî \u{1f600}"), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), said);
    }
}
