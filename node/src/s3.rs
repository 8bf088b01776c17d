//! S3-compatible stores: how one is reached, and what it says when it refuses.

mod credentials;

use std::error::Error as _;
use std::fs;
use std::io;
use std::time::Duration;

use anyhow::Context;
use object_store::aws::{AmazonS3, AmazonS3ConfigKey};
use object_store::{Certificate, ClientOptions, Error, RetryConfig};

use crate::config::S3;

/// For the answer to one request, a part included.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a request is made again that may do better then.
const RETRIES: usize = 4;
/// When a request was begun so long ago, it is not made again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// A bucket of a store, with what the configuration and the environment say of it. Asks nobody yet.
pub(crate) fn open(
    bucket: &str,
    s3: &S3,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<AmazonS3> {
    let mut client = ClientOptions::new().with_timeout(PATIENCE).with_allow_http(s3.allow_http);
    if let Some(ca) = &s3.ca {
        let read = || anyhow::Ok(Certificate::from_pem_bundle(&fs::read(ca)?)?);
        for certificate in read().with_context(|| format!("cannot use {}", ca.display()))? {
            client = client.with_root_certificate(certificate);
        }
    }
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let mut builder = credentials::builder(s3, environment)?
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!s3.path_style)
        .with_client_options(client)
        .with_retry(retry);
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    let named = |key| builder.get_config_value(&key);
    let endpoint = s3.endpoint.clone();
    let endpoint = endpoint
        .or_else(|| named(AmazonS3ConfigKey::S3Endpoint))
        .or_else(|| named(AmazonS3ConfigKey::Endpoint));
    if let Some(mut endpoint) = endpoint {
        s3.check_endpoint(&endpoint).map_err(anyhow::Error::msg)?;
        if let Some((scheme, host)) = endpoint.split_once("://").filter(|_| !s3.path_style) {
            endpoint = format!("{scheme}://{bucket}.{host}");
        }
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    Ok(builder.build()?)
}

/// What went wrong, in a line. The answer of a store is not repeated whole: it may hold the token that it
/// was asked with.
pub(crate) fn said(error: &Error) -> io::Error {
    let text = error.to_string();
    let said = match (error, tag(&text, "Code")) {
        (_, Some("NoSuchBucket")) => "there is no such bucket".into(),
        (_, Some("NoSuchKey")) | (Error::NotFound { .. }, None) => "there is no such object".into(),
        (_, Some(code)) => {
            let why = tag(&text, "Message").unwrap_or("without a reason");
            format!("the store refuses: {code}: {why}")
        }
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, None) => {
            "the store refuses the credentials, or they may not do this".into()
        }
        (Error::Precondition { .. }, None) => "the object was replaced meanwhile".into(),
        _ => root(error),
    };
    io::Error::other(said)
}

/// The code of an error, in the answer of a store.
pub(crate) fn code(answer: &str) -> Option<&str> {
    tag(answer, "Code")
}

/// What an answer in XML says under a name.
fn tag<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = answer.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// Where an error comes from, which for one of the network says most.
fn root(error: &Error) -> String {
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|it| it.source()) {
        cause = Some(next);
    }
    let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
    format!("the store cannot be asked: {}", text.lines().next().unwrap_or_default())
}
