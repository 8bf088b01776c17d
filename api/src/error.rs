//! What a client is told when a request fails: the one place where a failure becomes an HTTP
//! status, an AWS error code and a body.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use fleet::registry::{NameError, Rejection};
use serde_json::json;
use thiserror::Error;

use crate::arn::Arns;
use crate::backend::{ProposeError, PublishError, ShadowError, Unavailable};
use crate::provisioning::ProvisionError;
use crate::sigv4::AuthError;

/// A failed request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The request itself is wrong: what, and where.
    #[error("{0}")]
    Invalid(String),
    /// A policy document is not one.
    #[error("{0}")]
    MalformedPolicy(String),
    /// A certificate is not one that can be registered.
    #[error("{0}")]
    CertificateValidation(String),
    /// Who registers an authority has not proved to have its key.
    #[error("{0}")]
    RegistrationCodeValidation(String),
    /// It is not said which of several authorities is meant.
    #[error("{0}")]
    CertificateConflict(String),
    /// The signature is missing or wrong.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The policies of the caller do not allow it.
    #[error("Forbidden")]
    Forbidden,
    /// Nobody may do it, or not this caller: what, or why.
    #[error("{0}")]
    AccessDenied(String),
    /// What the request is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// No operation has this path.
    #[error("{0}")]
    UnknownOperation(String),
    /// There are operations with this path, but none with this method.
    #[error("the method is not allowed here; allowed: {0}")]
    MethodNotAllowed(String),
    /// The body did not arrive in time.
    #[error("the body of the request did not arrive in time")]
    BodyTimeout,
    /// The certificate's status does not allow it.
    #[error("{0}")]
    CertificateState(String),
    /// What is to be created exists and is different.
    #[error("{message}")]
    AlreadyExists {
        /// What exists.
        message: String,
        /// Its id.
        id: String,
        /// Its ARN.
        arn: String,
    },
    /// What is to be deleted is in use.
    #[error("{0}")]
    DeleteConflict(String),
    /// The version is not the one expected.
    #[error("{0}")]
    VersionConflict(String),
    /// A certificate cannot go to that account.
    #[error("{0}")]
    TransferConflict(String),
    /// There is no transfer of the certificate.
    #[error("{0}")]
    TransferAlreadyCompleted(String),
    /// A template cannot be carried out.
    #[error("{0}")]
    ResourceRegistrationFailure(String),
    /// What is there differs from what a template wants.
    #[error("{0}")]
    ConflictingResourceUpdate(String),
    /// An authorizer has given no answer that can be used.
    #[error("{0}")]
    InvalidResponse(String),
    /// Too much of something expensive at once, or more requests than a caller may make in a second.
    #[error("{0}")]
    Throttled(String),
    /// A policy has all the versions it can have.
    #[error("{0}")]
    VersionsLimitExceeded(String),
    /// There is no index that a query could ask.
    #[error("{0}")]
    IndexNotReady(String),
    /// A limit of the account or of a principal.
    #[error("{0}")]
    LimitExceeded(String),
    /// The body is larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// The shadow service refused.
    #[error("{}", .0.message)]
    Shadow(shadow::Rejected),
    /// Too many requests at once, or no leader, or a queue that is full.
    #[error("the service cannot answer now; try again")]
    Unavailable,
    /// A fault of ours; the log says more.
    #[error("internal failure")]
    Internal,
}

/// Which of the APIs an error belongs to; they name a few errors differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Control,
    Data,
    Credentials,
}

impl Error {
    /// What a refused command means for the client.
    pub(crate) fn rejected(rejection: Rejection, arns: &Arns) -> Self {
        use Rejection as R;
        let mut message = rejection.to_string();
        if let R::CertificateHasThings(id) | R::CertificateHasPolicies(id) = &rejection {
            message = message.replace(&format!("cert/{id}"), &arns.certificate(id));
        }
        match rejection {
            R::ThingNotFound(_)
            | R::ThingTypeNotFound(_)
            | R::ThingGroupNotFound(_)
            | R::BillingGroupNotFound(_)
            | R::CertificateNotFound(_)
            | R::AuthorityNotFound(_)
            | R::RegistrationCodeNotFound
            | R::TemplateNotFound(_)
            | R::TemplateVersionNotFound { .. }
            | R::AuthorizerNotFound(_)
            | R::DefaultAuthorizerNotFound
            | R::RoleAliasNotFound(_)
            | R::RegistrationTaskNotFound(_)
            | R::PolicyNotFound(_)
            | R::PolicyVersionNotFound { .. } => Self::NotFound(message),
            R::ThingExists { thing, id } => {
                let arn = arns.thing(&thing);
                Self::AlreadyExists { message, id: id.to_string(), arn }
            }
            R::ThingTypeExists { thing_type, id } => {
                let arn = arns.thing_type(thing_type);
                Self::AlreadyExists { message, id: id.to_string(), arn }
            }
            R::ThingGroupExists { group, id } => {
                let arn = arns.thing_group(&group);
                Self::AlreadyExists { message, id: id.to_string(), arn }
            }
            R::BillingGroupExists { group, id } => {
                let arn = arns.billing_group(&group);
                Self::AlreadyExists { message, id: id.to_string(), arn }
            }
            R::CertificateExists(id) => {
                let arn = arns.certificate(&id);
                Self::AlreadyExists { message, id: id.to_string(), arn }
            }
            R::AuthorityExists(id) => {
                let arn = arns.authority(&id);
                Self::AlreadyExists { message, id: id.to_string(), arn }
            }
            R::RegistrationCodeIsAnother => Self::RegistrationCodeValidation(message),
            R::PolicyExists(name) => {
                let arn = arns.policy(&name);
                Self::AlreadyExists { message, id: name.to_string(), arn }
            }
            R::TemplateExists(name) => {
                let arn = arns.template(&name);
                Self::AlreadyExists { message, id: name.to_string(), arn }
            }
            R::ResourceConflict { .. } => Self::ConflictingResourceUpdate(message),
            R::AuthorizerExists(name) | R::DefaultAuthorizerExists(name) => {
                let arn = arns.authorizer(&name);
                Self::AlreadyExists { message, id: name.to_string(), arn }
            }
            R::RoleAliasExists(name) => {
                let arn = arns.role_alias(&name);
                Self::AlreadyExists { message, id: name.to_string(), arn }
            }
            R::VersionConflict { .. } | R::RevocationListOlder { .. } => {
                Self::VersionConflict(message)
            }
            R::CertificateActive(_)
            | R::CertificateInTransfer(_)
            | R::CertificateRevoked(_)
            | R::AuthorityActive(_)
            | R::AuthorityInactive(_) => Self::CertificateState(message),
            R::CertificateHasThings(_)
            | R::CertificateHasPolicies(_)
            | R::PolicyVersionIsDefault(_)
            | R::PolicyAttached(_)
            | R::PolicyHasVersions(_)
            | R::TemplateVersionIsDefault(_)
            | R::AuthorizerActive(_)
            | R::AuthorizerIsDefault(_)
            | R::TemplateInUse { .. } => Self::DeleteConflict(message),
            R::TemplateChanged(_) => Self::ConflictingResourceUpdate(message),
            R::PolicyMalformed(_) => Self::MalformedPolicy(message),
            R::PolicyVersionLimit { .. } | R::TemplateVersionLimit { .. } => {
                Self::VersionsLimitExceeded(message)
            }
            R::PolicyLimit { .. }
            | R::TooManyTags { .. }
            | R::TooManyAuthorities { .. }
            | R::TooManyAuthorizers { .. }
            | R::TooManyActiveAuthorizers { .. }
            | R::TooManyRoleAliases { .. }
            | R::TooManyRegistrationTasks { .. }
            | R::TooManyTemplates { .. } => Self::LimitExceeded(message),
            R::ManyUnclaimedCertificates { .. } => Self::Throttled(message),
            R::Name(_)
            | R::ThingHasPrincipals(_)
            | R::TooManyAttributes { .. }
            | R::AttributesTooLarge { .. }
            | R::ThingTypeSetAndRemoved
            | R::ThingGroupTooDeep { .. }
            | R::ThingGroupHasManyChildren { .. }
            | R::ThingGroupHasChildren(_)
            | R::GroupHasManyAttributes { .. }
            | R::ThingInManyGroups { .. }
            | R::ThingInTree { .. }
            | R::GroupIsNoPrincipal(_)
            | R::ThingInBillingGroup { .. }
            | R::ThingTypeDeprecated(_)
            | R::ThingTypeNotDeprecated(_)
            | R::ThingTypeDeprecatedRecently { .. }
            | R::ThingTypeInUse(_)
            | R::ThingTypeTooLarge { .. }
            | R::PropagatingAttribute(_)
            | R::CertificateStatusNotSettable(_)
            | R::NotTheOwner
            | R::AuthorizerCannotVerify(_)
            | R::TemplateHasNoHook
            | R::RegistrationTaskRuns(_)
            | R::RegistrationTaskEnded { .. }
            | R::RegistrationTaskMoved(_)
            | R::RegistrationLineDone { .. }
            | R::AttachedExclusively { .. }
            | R::AttachedElsewhere { .. }
            | R::MemberNotFound(_)
            | R::MemberExists(_)
            | R::MemberRemoved(_)
            | R::MemberLeaving(_)
            | R::MemberNotActive(_)
            | R::LastMember(_)
            | R::MemberRefused { .. } => Self::Invalid(message),
        }
    }

    /// What a device that could not be provisioned means for an operator.
    pub(crate) fn provision(error: ProvisionError, arns: &Arns) -> Self {
        use ProvisionError as P;
        match error {
            P::Certificate(ref found) if found.is_ours() => {
                tracing::error!(%error, "a certificate could not be made");
                Self::Internal
            }
            P::Template(_) | P::Certificate(_) | P::OtherCertificate => {
                Self::ResourceRegistrationFailure(error.to_string())
            }
            P::Authority(error) => error,
            P::Rejected(rejection) => match Self::rejected(rejection, arns) {
                Self::Invalid(message)
                | Self::NotFound(message)
                | Self::MalformedPolicy(message)
                | Self::LimitExceeded(message) => Self::ResourceRegistrationFailure(message),
                other => other,
            },
            P::Busy => Self::Throttled(error.to_string()),
            P::Unavailable(Unavailable) => Self::Unavailable,
            P::NoIssuer | P::Internal => {
                tracing::error!(%error, "a device could not be provisioned");
                Self::Internal
            }
        }
    }

    pub(crate) fn proposed(error: ProposeError, arns: &Arns) -> Self {
        match error {
            ProposeError::Rejected(rejection) => Self::rejected(rejection, arns),
            ProposeError::Unavailable(Unavailable) => Self::Unavailable,
        }
    }

    /// The HTTP status and the name of the exception.
    pub(crate) fn status_and_code(&self, plane: Plane) -> (u16, &'static str) {
        match self {
            Self::Invalid(_) => (400, "InvalidRequestException"),
            Self::MalformedPolicy(_) => (400, "MalformedPolicyException"),
            Self::CertificateValidation(_) => (400, "CertificateValidationException"),
            Self::RegistrationCodeValidation(_) => (400, "RegistrationCodeValidationException"),
            Self::ResourceRegistrationFailure(_) => (400, "ResourceRegistrationFailureException"),
            Self::InvalidResponse(_) => (400, "InvalidResponseException"),
            Self::IndexNotReady(_) => (400, "IndexNotReadyException"),
            Self::Throttled(_) if plane == Plane::Control => (400, "ThrottlingException"),
            Self::Throttled(_) => (429, "ThrottlingException"),
            Self::ConflictingResourceUpdate(_) => (409, "ConflictingResourceUpdateException"),
            Self::TransferConflict(_) => (409, "TransferConflictException"),
            Self::TransferAlreadyCompleted(_) => (410, "TransferAlreadyCompletedException"),
            Self::CertificateConflict(_) => (409, "CertificateConflictException"),
            Self::Auth(error) => (403, error.code()),
            Self::Forbidden | Self::AccessDenied(_) if plane == Plane::Data => {
                (403, "ForbiddenException")
            }
            Self::Forbidden | Self::AccessDenied(_) => (403, "AccessDeniedException"),
            Self::NotFound(_) => (404, "ResourceNotFoundException"),
            Self::UnknownOperation(_) => (404, "UnknownOperationException"),
            Self::MethodNotAllowed(_) => (405, "MethodNotAllowedException"),
            Self::CertificateState(_) => (406, "CertificateStateException"),
            Self::BodyTimeout => (408, "RequestTimeoutException"),
            Self::AlreadyExists { .. } => (409, "ResourceAlreadyExistsException"),
            Self::DeleteConflict(_) => (409, "DeleteConflictException"),
            Self::VersionConflict(_) => (409, "VersionConflictException"),
            Self::VersionsLimitExceeded(_) => (409, "VersionsLimitExceededException"),
            Self::LimitExceeded(_) => (410, "LimitExceededException"),
            Self::TooLarge(_) => (413, "RequestEntityTooLargeException"),
            Self::Shadow(rejected) => (rejected.code, shadow_code(rejected.code)),
            Self::Internal => (500, "InternalFailureException"),
            Self::Unavailable => (503, "ServiceUnavailableException"),
        }
    }

    /// The response without the request id.
    pub(crate) fn response(&self, plane: Plane, trace: &str) -> Response<Body> {
        let (status, code) = self.status_and_code(plane);
        let mut body = json!({ "message": self.to_string() });
        match self {
            Self::AlreadyExists { id, arn, .. } => {
                body["resourceId"] = id.as_str().into();
                body["resourceArn"] = arn.as_str().into();
            }
            Self::Shadow(rejected) => body["code"] = rejected.code.into(),
            _ => {}
        }
        if plane == Plane::Data {
            body["traceId"] = trace.into();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
        if let Self::MethodNotAllowed(methods) = self
            && let Ok(methods) = HeaderValue::from_str(methods)
        {
            headers.insert(header::ALLOW, methods);
        }
        response
    }
}

fn shadow_code(status: u16) -> &'static str {
    match status {
        401 => "UnauthorizedException",
        403 => "ForbiddenException",
        404 => "ResourceNotFoundException",
        409 => "ConflictException",
        413 => "RequestEntityTooLargeException",
        415 => "UnsupportedDocumentEncodingException",
        429 => "ThrottlingException",
        500.. => "InternalFailureException",
        _ => "InvalidRequestException",
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<authorizer::Refusal> for Error {
    /// A client is not told why it is not let in; the log tells it.
    fn from(refusal: authorizer::Refusal) -> Self {
        if refusal.is_passing() { Self::Unavailable } else { Self::Forbidden }
    }
}

impl From<Unavailable> for Error {
    fn from(Unavailable: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl From<ShadowError> for Error {
    fn from(error: ShadowError) -> Self {
        match error {
            ShadowError::Rejected(rejected) => Self::Shadow(rejected),
            ShadowError::Unavailable(Unavailable) => Self::Unavailable,
        }
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            PublishError::Topic(_) => Self::Invalid(error.to_string()),
            PublishError::Unavailable(Unavailable) => Self::Unavailable,
        }
    }
}
