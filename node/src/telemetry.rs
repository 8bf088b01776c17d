//! Logs and traces of the process.

use std::collections::HashMap;
use std::io::IsTerminal;

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
use tracing::info;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogFormat, Traces as TracesConfig};

/// What is logged; can be changed while the node runs.
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
        let parsed = EnvFilter::try_new(filter)
            .with_context(|| format!("{filter:?} is not a filter like info,node=debug"))?;
        self.0.reload(parsed).context("there is no log")?;
        info!(filter, "what is logged has changed");
        Ok(())
    }
}

/// Installs logs for the process.
pub fn install_log(log: &Log) -> anyhow::Result<LogFilter> {
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("log.filter {:?} is not a filter", log.filter))?;
    let (filter, handle) = reload::Layer::new(filter);
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match log.format {
        LogFormat::Human => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(LogFilter(handle))
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
            tracing::warn!(%error, "the last traces could not be exported");
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
    fn a_traceparent_is_continued() {
        let context = context_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let span = context.span();
        assert!(span.span_context().is_sampled());
        let id = span.span_context().trace_id().to_string();
        assert_eq!(id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!context_of("nonsense").span().span_context().is_valid());
    }
}
