//! What proves to an S3-compatible store who asks: from a file as the tools of AWS write it, or from the
//! environment with the names that they use. Secrets are never shown.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, ensure};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::config::S3;

/// What of the environment says who asks. Machines of AWS that have a role are told so by the last ones.
const WHO: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// What of it says where, unless the configuration does.
const WHERE: [&str; 4] =
    ["AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];

/// A store with the credentials of the configuration or the environment, and what the latter says of its
/// place.
pub(super) fn builder(
    s3: &S3,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<AmazonS3Builder> {
    let environment: BTreeMap<String, String> =
        environment.filter(|(_, value)| !value.is_empty()).collect();
    let from_file = s3.credentials.is_some();
    let names = WHERE.iter().chain(WHO.iter().filter(|_| !from_file));
    let mut builder = AmazonS3Builder::new();
    for name in names {
        if let Some(value) = environment.get(*name) {
            builder = builder.with_config(name.to_ascii_lowercase().parse()?, value);
        }
    }
    if let Some(file) = &s3.credentials {
        let read = || -> anyhow::Result<_> { profile(&fs::read_to_string(file)?, &s3.profile) };
        for (key, value) in read().with_context(|| format!("cannot use {}", file.display()))? {
            builder = builder.with_config(key, value);
        }
    }
    let is_known = |key| builder.get_config_value(&key).is_some();
    ensure!(
        is_known(AmazonS3ConfigKey::AccessKeyId) && is_known(AmazonS3ConfigKey::SecretAccessKey)
            || is_known(AmazonS3ConfigKey::WebIdentityTokenFile)
            || is_known(AmazonS3ConfigKey::ContainerCredentialsRelativeUri)
            || is_known(AmazonS3ConfigKey::ContainerCredentialsFullUri),
        "there are no credentials: set credentials in the s3 section to a file, or AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY in the environment"
    );
    Ok(builder)
}

/// The keys of one profile.
fn profile(text: &str, wanted: &str) -> anyhow::Result<Vec<(AmazonS3ConfigKey, String)>> {
    let mut is_wanted = false;
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_wanted = name.trim() == wanted;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_wanted) {
            let key = match key.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
                "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
                "aws_session_token" => AmazonS3ConfigKey::Token,
                _ => continue,
            };
            keys.push((key, value.trim().to_owned()));
        }
    }
    let has = |wanted| keys.iter().any(|(key, _)| *key == wanted);
    ensure!(
        has(AmazonS3ConfigKey::AccessKeyId) && has(AmazonS3ConfigKey::SecretAccessKey),
        "[{wanted}] has no aws_access_key_id or no aws_secret_access_key"
    );
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        let text = "# of the store\n[default]\naws_access_key_id = file-id\n\
                    aws_secret_access_key=of/the+file==\nregion = nowhere\n[other]\n\
                    aws_access_key_id = other-id\n  aws_secret_access_key = s \n\
                    aws_session_token = t\n[half]\naws_access_key_id = half-id\n";
        fs::write(&file, text).unwrap();
        let of = |profile: &str| S3 {
            credentials: Some(file.clone()),
            profile: profile.into(),
            ..S3::default()
        };
        let nowhere = S3 { credentials: Some("/nowhere".into()), ..S3::default() };
        let env = [("AWS_ACCESS_KEY_ID", "env-id"), ("AWS_SECRET_ACCESS_KEY", "env-secret")];
        let role = [("AWS_ROLE_ARN", "arn"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")];
        for (s3, environment, expected) in [
            (S3::default(), &env[..], Ok(["env-id", "env-secret", ""])),
            (of("default"), &env, Ok(["file-id", "of/the+file==", ""])),
            (of("other"), &[], Ok(["other-id", "s", "t"])),
            (S3::default(), &role, Ok(["", "", ""])),
            (S3::default(), &env[..1], Err("there are no credentials")),
            (S3::default(), &[("AWS_ACCESS_KEY_ID", ""), env[1]], Err("there are no credentials")),
            (of("half"), &env, Err("[half] has no aws_access_key_id or no")),
            (of("absent"), &env, Err("[absent] has no")),
            (nowhere, &env, Err("cannot use /nowhere")),
        ] {
            let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            match (builder(&s3, environment), expected) {
                (Ok(builder), Ok(expected)) => {
                    let found = [
                        AmazonS3ConfigKey::AccessKeyId,
                        AmazonS3ConfigKey::SecretAccessKey,
                        AmazonS3ConfigKey::Token,
                    ];
                    let found = found.map(|key| builder.get_config_value(&key).unwrap_or_default());
                    assert_eq!(found, expected);
                }
                (Err(error), Err(expected)) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(expected), "{error}, not {expected}");
                }
                (found, expected) => panic!("{:?}, not {expected:?}", found.map(drop)),
            }
        }
    }
}
