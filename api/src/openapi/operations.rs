//! What each operation takes and answers, beyond its route and the types of bodies.
//!
//! An operation is one line: what it `asks` for in its query, what it `sends` in headers, what its
//! body `takes`, what it `gives` and how it `fails`. Members are written as [`shape`](super::shape)
//! says, errors as in [`ERRORS`](super::ERRORS). A list `pages` in one of the styles, whose
//! parameters and next token need not be repeated.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::openapi::shape::{Member, Shape, members};
use crate::paging::{MARKER, NEXT_TOKEN, Style};
use crate::routes::Operation;
use crate::{
    authorities, authorizers, billing_groups, certificates, connections, dynamic_groups, effective,
    events, policies, principals, provisioning, registration_tasks, retained, role_aliases,
    shadows, tagging, templates, thing_groups, thing_types, things,
};

/// How an operation is used.
#[derive(Default)]
pub(super) struct Description {
    asks: &'static str,
    sends: &'static str,
    gives: &'static str,
    /// Names of errors, besides those that any operation has.
    pub(super) fails: &'static str,
    pages: Option<Style>,
    pub(super) body: Option<Body>,
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// The members of a JSON object, as this schema says.
    Members(fn() -> Value),
    /// A JSON object that the API does not look into.
    Document,
    /// Any bytes.
    Payload,
}

impl Description {
    fn asks(self, asks: &'static str) -> Self {
        Self { asks, ..self }
    }

    fn sends(self, sends: &'static str) -> Self {
        Self { sends, ..self }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(Body::Members(schema::<T>)), ..self }
    }

    fn takes_document(self) -> Self {
        Self { body: Some(Body::Document), ..self }
    }

    fn takes_payload(self) -> Self {
        Self { body: Some(Body::Payload), ..self }
    }

    fn gives(self, gives: &'static str) -> Self {
        Self { gives, ..self }
    }

    fn fails(self, fails: &'static str) -> Self {
        Self { fails, ..self }
    }

    fn pages(self, style: Style) -> Self {
        Self { pages: Some(style), ..self }
    }

    /// The parameters of its query.
    pub(super) fn query(&self) -> Vec<Member> {
        let mut query = members(self.asks);
        if let Some(style) = self.pages {
            let size = json!({ "type": "integer", "minimum": 1, "maximum": style.max });
            query.push(Member::optional(style.size, Shape::Schema(size)));
            query.push(Member::optional(style.token, Shape::Text));
            if style.is_newest_first {
                query.push(Member::optional("isAscendingOrder", Shape::Flag));
            }
        }
        query
    }

    /// The headers that belong to it alone.
    pub(super) fn headers(&self) -> Vec<Member> {
        members(self.sends)
    }

    /// The object that it answers with.
    pub(super) fn answer(&self) -> Shape {
        let mut answer = members(self.gives);
        if let Some(style) = self.pages {
            answer.push(Member::optional(style.next, Shape::Text));
        }
        Shape::Object(answer)
    }

    pub(super) fn fails_with(&self, name: &str) -> bool {
        self.fails.split_whitespace().any(|known| known == name)
    }
}

/// The schema of a type, as serde reads it.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    schema.into()
}

macro_rules! described {
    ($($name:ident: $($word:ident $(::<$body:ty>)? ($($given:expr)?))*;)*) => {
        /// How an operation is used.
        pub(super) fn describe(operation: Operation) -> Description {
            match operation {
                $(Operation::$name => {
                    Description::default()$(.$word $(::<$body>)? ($($given)?))*
                })*
            }
        }
    };
}

const ATTACHED_AS: &str = "thingPrincipalType?:EXCLUSIVE_THING|NON_EXCLUSIVE_THING";
const CERTIFICATES: &str =
    "certificates[ certificateArn certificateId status certificateMode creationDate:number ]";

described! {
    CreateThing: takes::<things::Create>() gives("thingName thingArn thingId") fails("ResourceNotFound ResourceAlreadyExists");
    DescribeThing: gives("thingName thingArn thingId attributes{} version:int defaultClientId thingTypeName? billingGroupName?") fails("ResourceNotFound");
    UpdateThing: takes::<things::Update>() fails("ResourceNotFound VersionConflict");
    DeleteThing: asks("expectedVersion?:int") fails("ResourceNotFound VersionConflict");
    ListThings: asks("thingTypeName? attributeName? attributeValue? usePrefixAttributeValue?:bool") pages(NEXT_TOKEN)
        gives("things[ thingName thingArn thingTypeName? attributes{} version:int ]");

    CreateThingType: takes::<thing_types::Body>() gives("thingTypeName thingTypeArn thingTypeId") fails("ResourceAlreadyExists");
    DescribeThingType: gives("thingTypeName thingTypeArn thingTypeId thingTypeProperties{ thingTypeDescription? searchableAttributes[]
            mqtt5Configuration?{ propagatingAttributes[ userPropertyKey thingAttribute? connectionAttribute? ] } }
            thingTypeMetadata{ deprecated:bool creationDate:number deprecationDate?:number }") fails("ResourceNotFound");
    UpdateThingType: takes::<thing_types::Body>() fails("ResourceNotFound");
    DeprecateThingType: takes::<thing_types::Body>() fails("ResourceNotFound");
    DeleteThingType: fails("ResourceNotFound");
    ListThingTypes: asks("thingTypeName?") pages(NEXT_TOKEN)
        gives("thingTypes[ thingTypeName thingTypeArn thingTypeProperties{ thingTypeDescription? searchableAttributes[]
            mqtt5Configuration?{ propagatingAttributes[ userPropertyKey thingAttribute? connectionAttribute? ] } }
            thingTypeMetadata{ deprecated:bool creationDate:number deprecationDate?:number } ]");

    CreateThingGroup: takes::<thing_groups::Body>() gives("thingGroupName thingGroupArn thingGroupId") fails("ResourceNotFound ResourceAlreadyExists");
    DescribeThingGroup: gives("thingGroupName thingGroupId thingGroupArn version:int
            thingGroupProperties{ thingGroupDescription? attributePayload?{ attributes{} } }
            thingGroupMetadata{ creationDate:number parentGroupName? rootToParentThingGroups?[ groupName groupArn ] }") fails("ResourceNotFound");
    UpdateThingGroup: takes::<thing_groups::Body>() gives("version:int") fails("ResourceNotFound VersionConflict");
    DeleteThingGroup: asks("expectedVersion?:int") fails("VersionConflict");
    ListThingGroups: asks("parentGroup? namePrefixFilter? recursive?:bool") pages(NEXT_TOKEN) gives("thingGroups[ groupName groupArn ]") fails("ResourceNotFound");
    ListThingGroupsForThing: pages(NEXT_TOKEN) gives("thingGroups[ groupName groupArn ]") fails("ResourceNotFound");
    ListThingsInThingGroup: asks("recursive?:bool") pages(NEXT_TOKEN) gives("things[]") fails("ResourceNotFound");
    AddThingToThingGroup: takes::<thing_groups::Membership>() fails("ResourceNotFound");
    RemoveThingFromThingGroup: takes::<thing_groups::Membership>() fails("ResourceNotFound");
    UpdateThingGroupsForThing: takes::<thing_groups::Membership>() fails("ResourceNotFound");

    CreateDynamicThingGroup: takes::<dynamic_groups::Body>()
        gives("thingGroupName thingGroupArn thingGroupId indexName queryString queryVersion") fails("IndexNotReady ResourceAlreadyExists");
    UpdateDynamicThingGroup: takes::<dynamic_groups::Body>() gives("version:int") fails("IndexNotReady");
    DeleteDynamicThingGroup: asks("expectedVersion?:int");

    CreateBillingGroup: takes::<billing_groups::Body>() gives("billingGroupName billingGroupArn billingGroupId") fails("ResourceAlreadyExists");
    DescribeBillingGroup: gives("billingGroupName billingGroupId billingGroupArn version:int billingGroupProperties{ billingGroupDescription? }
            billingGroupMetadata{ creationDate:number }") fails("ResourceNotFound");
    UpdateBillingGroup: takes::<billing_groups::Body>() gives("version:int") fails("ResourceNotFound VersionConflict");
    DeleteBillingGroup: asks("expectedVersion?:int") fails("VersionConflict");
    ListBillingGroups: asks("namePrefixFilter?") pages(NEXT_TOKEN) gives("billingGroups[ groupName groupArn ]");
    ListThingsInBillingGroup: pages(NEXT_TOKEN) gives("things[]") fails("ResourceNotFound");
    AddThingToBillingGroup: takes::<billing_groups::Membership>() fails("ResourceNotFound");
    RemoveThingFromBillingGroup: takes::<billing_groups::Membership>() fails("ResourceNotFound");

    TagResource: takes::<tagging::Body>() fails("ResourceNotFound LimitExceeded");
    UntagResource: takes::<tagging::Body>() fails("ResourceNotFound");
    ListTagsForResource: asks("resourceArn") gives("tags[ Key Value ]") fails("ResourceNotFound");

    AttachThingPrincipal: asks(ATTACHED_AS) sends("x-amzn-principal") fails("ResourceNotFound");
    DetachThingPrincipal: sends("x-amzn-principal") fails("ResourceNotFound");
    ListThingPrincipals: asks(ATTACHED_AS) pages(NEXT_TOKEN) gives("principals[]") fails("ResourceNotFound");
    ListThingPrincipalsV2: asks(ATTACHED_AS) pages(NEXT_TOKEN) gives("thingPrincipalObjects[ principal thingPrincipalType ]") fails("ResourceNotFound");
    ListPrincipalThings: asks(ATTACHED_AS) sends("x-amzn-principal") pages(NEXT_TOKEN) gives("things[]") fails("ResourceNotFound");
    ListPrincipalThingsV2: asks(ATTACHED_AS) sends("x-amzn-principal") pages(NEXT_TOKEN) gives("principalThingObjects[ thingName thingPrincipalType ]")
        fails("ResourceNotFound");

    CreateKeysAndCertificate: asks("setAsActive?:bool") gives("certificateArn certificateId certificatePem keyPair{ PublicKey PrivateKey }");
    CreateCertificateFromCsr: asks("setAsActive?:bool") takes::<certificates::Body>() gives("certificateArn certificateId certificatePem");
    RegisterCertificate: asks("setAsActive?:bool") takes::<certificates::Body>() gives("certificateArn certificateId")
        fails("CertificateConflict CertificateState CertificateValidation ResourceAlreadyExists");
    RegisterCertificateWithoutCA: takes::<certificates::Body>() gives("certificateArn certificateId")
        fails("CertificateState CertificateValidation ResourceAlreadyExists");
    DescribeCertificate: gives("certificateDescription{ certificateArn certificateId status certificateMode creationDate:number certificatePem ownedBy
            lastModifiedDate:number customerVersion:int generationId validity{ notBefore:number notAfter:number } caCertificateId? }")
        fails("ResourceNotFound");
    UpdateCertificate: asks("newStatus:ACTIVE|INACTIVE|REVOKED|PENDING_TRANSFER|PENDING_ACTIVATION") fails("CertificateState ResourceNotFound");
    DeleteCertificate: asks("forceDelete?:bool") fails("CertificateState DeleteConflict ResourceNotFound");
    ListCertificates: pages(MARKER) gives(CERTIFICATES);
    TransferCertificate: asks("targetAwsAccount") fails("CertificateState ResourceNotFound TransferConflict");
    AcceptCertificateTransfer: fails("ResourceNotFound TransferAlreadyCompleted");
    RejectCertificateTransfer: fails("ResourceNotFound TransferAlreadyCompleted");
    CancelCertificateTransfer: fails("ResourceNotFound TransferAlreadyCompleted");
    ListOutgoingCertificates: pages(MARKER) gives("outgoingCertificates[]");

    GetRegistrationCode: gives("registrationCode");
    DeleteRegistrationCode: fails("ResourceNotFound");
    RegisterCACertificate: asks("setAsActive?:bool allowAutoRegistration?:bool") takes::<authorities::Body>() gives("certificateArn certificateId")
        fails("CertificateValidation LimitExceeded RegistrationCodeValidation ResourceAlreadyExists ResourceNotFound");
    DescribeCACertificate: gives("certificateDescription{ certificateArn certificateId status creationDate:number certificatePem ownedBy
            autoRegistrationStatus lastModifiedDate:number customerVersion:int generationId certificateMode
            validity{ notBefore:number notAfter:number } } registrationConfig?{ templateBody? roleArn? templateName? }") fails("ResourceNotFound");
    UpdateCACertificate: asks("newStatus?:ACTIVE|INACTIVE newAutoRegistrationStatus?:ENABLE|DISABLE") takes::<authorities::Body>() fails("ResourceNotFound");
    DeleteCACertificate: fails("CertificateState ResourceNotFound");
    ListCACertificates: asks("templateName?") pages(MARKER) gives("certificates[ certificateArn certificateId status creationDate:number ]");
    ListCertificatesByCA: pages(MARKER) gives(CERTIFICATES);

    CreateRoleAlias: takes::<role_aliases::Body>() gives("roleAlias roleAliasArn") fails("LimitExceeded ResourceAlreadyExists");
    DescribeRoleAlias: gives("roleAliasDescription{ roleAlias roleAliasArn roleArn owner credentialDurationSeconds:int creationDate:number
            lastModifiedDate:number }") fails("ResourceNotFound");
    UpdateRoleAlias: takes::<role_aliases::Body>() gives("roleAlias roleAliasArn") fails("ResourceNotFound");
    DeleteRoleAlias: fails("ResourceNotFound");
    ListRoleAliases: pages(MARKER) gives("roleAliases[]");

    CreatePolicy: takes::<policies::Body>() gives("policyName policyArn policyDocument policyVersionId") fails("MalformedPolicy ResourceAlreadyExists");
    GetPolicy: gives("policyName policyArn policyDocument defaultVersionId creationDate:number lastModifiedDate:number generationId") fails("ResourceNotFound");
    DeletePolicy: fails("DeleteConflict ResourceNotFound");
    ListPolicies: pages(MARKER) gives("policies[ policyName policyArn ]");
    CreatePolicyVersion: asks("setAsDefault?:bool") takes::<policies::Body>() gives("policyArn policyDocument policyVersionId isDefaultVersion:bool")
        fails("MalformedPolicy ResourceNotFound VersionsLimitExceeded");
    GetPolicyVersion: gives("policyName policyArn policyDocument policyVersionId isDefaultVersion:bool creationDate:number lastModifiedDate:number generationId")
        fails("ResourceNotFound");
    SetDefaultPolicyVersion: fails("ResourceNotFound");
    DeletePolicyVersion: fails("DeleteConflict ResourceNotFound");
    ListPolicyVersions: gives("policyVersions[ versionId isDefaultVersion:bool createDate:number ]") fails("ResourceNotFound");
    AttachPolicy: takes::<principals::Body>() fails("LimitExceeded ResourceNotFound");
    DetachPolicy: takes::<principals::Body>();
    ListAttachedPolicies: asks("recursive?:bool") pages(principals::ATTACHED) gives("policies[ policyName policyArn ]") fails("ResourceNotFound");
    ListTargetsForPolicy: pages(principals::ATTACHED) gives("targets[]") fails("ResourceNotFound");
    AttachPrincipalPolicy: sends("x-amzn-iot-principal") fails("LimitExceeded ResourceNotFound");
    DetachPrincipalPolicy: sends("x-amzn-iot-principal") fails("ResourceNotFound");
    ListPrincipalPolicies: sends("x-amzn-iot-principal") pages(MARKER) gives("policies[ policyName policyArn ]") fails("ResourceNotFound");
    ListPolicyPrincipals: sends("x-amzn-iot-policy") pages(MARKER) gives("principals[]") fails("ResourceNotFound");
    GetEffectivePolicies: asks("thingName?") takes::<effective::Body>() gives("effectivePolicies[ policyName policyArn policyDocument ]") fails("ResourceNotFound");
    TestAuthorization: asks("clientId?") takes::<effective::Body>()
        gives("authResults[ authInfo{ actionType resources[] } allowed{ policies[ policyName policyArn ] }
            denied{ implicitDeny{ policies[ policyName policyArn ] } explicitDeny{ policies[ policyName policyArn ] } }
            authDecision:ALLOWED|EXPLICIT_DENY|IMPLICIT_DENY missingContextValues[] ]") fails("ResourceNotFound");

    RegisterThing: takes::<provisioning::Body>() gives("certificatePem resourceArns{}")
        fails("CertificateConflict CertificateState CertificateValidation ConflictingResourceUpdate ResourceAlreadyExists ResourceRegistrationFailure");
    CreateProvisioningTemplate: takes::<templates::Body>() gives("templateArn templateName defaultVersionId:int") fails("LimitExceeded ResourceAlreadyExists");
    DescribeProvisioningTemplate: gives("templateArn templateName creationDate:number lastModifiedDate:number enabled:bool type description?
            defaultVersionId:int templateBody provisioningRoleArn preProvisioningHook?{ payloadVersion targetArn }") fails("ResourceNotFound");
    UpdateProvisioningTemplate: takes::<templates::Body>() fails("ResourceNotFound");
    DeleteProvisioningTemplate: fails("DeleteConflict ResourceNotFound");
    ListProvisioningTemplates: pages(NEXT_TOKEN)
        gives("templates[ templateArn templateName creationDate:number lastModifiedDate:number enabled:bool type description? ]");
    CreateProvisioningTemplateVersion: asks("setAsDefault?:bool") takes::<templates::Body>()
        gives("templateArn templateName versionId:int isDefaultVersion:bool") fails("ResourceNotFound VersionsLimitExceeded");
    DescribeProvisioningTemplateVersion: gives("versionId:int creationDate:number isDefaultVersion:bool templateBody") fails("ResourceNotFound");
    DeleteProvisioningTemplateVersion: fails("DeleteConflict ResourceNotFound");
    ListProvisioningTemplateVersions: pages(NEXT_TOKEN) gives("versions[ versionId:int creationDate:number isDefaultVersion:bool ]") fails("ResourceNotFound");
    CreateProvisioningClaim: gives("certificateId certificatePem keyPair{ PublicKey PrivateKey } expiration:number") fails("ResourceNotFound");

    StartThingRegistrationTask: takes::<registration_tasks::StartBody>() gives("taskId") fails("LimitExceeded");
    DescribeThingRegistrationTask: gives("taskId creationDate:number lastModifiedDate:number templateBody inputFileBucket inputFileKey roleArn
            status:InProgress|Completed|Failed|Cancelled|Cancelling message? successCount:int failureCount:int percentageProgress:int")
        fails("ResourceNotFound");
    StopThingRegistrationTask: fails("ResourceNotFound");
    ListThingRegistrationTasks: asks("status?:InProgress|Completed|Failed|Cancelled|Cancelling") pages(NEXT_TOKEN) gives("taskIds[]");
    ListThingRegistrationTaskReports: asks("reportType:ERRORS|RESULTS") pages(NEXT_TOKEN) gives("resourceLinks[] reportType:ERRORS|RESULTS")
        fails("ResourceNotFound");

    CreateAuthorizer: takes::<authorizers::Body>() gives("authorizerName authorizerArn") fails("LimitExceeded ResourceAlreadyExists");
    DescribeAuthorizer: gives("authorizerDescription{ authorizerName authorizerArn authorizerFunctionArn tokenKeyName? tokenSigningPublicKeys{}
            status:ACTIVE|INACTIVE creationDate:number lastModifiedDate:number signingDisabled:bool enableCachingForHttp:bool }")
        fails("ResourceNotFound");
    UpdateAuthorizer: takes::<authorizers::Body>() gives("authorizerName authorizerArn") fails("LimitExceeded ResourceNotFound");
    DeleteAuthorizer: fails("DeleteConflict ResourceNotFound");
    ListAuthorizers: asks("status?:ACTIVE|INACTIVE") pages(MARKER) gives("authorizers[ authorizerName authorizerArn ]");
    TestInvokeAuthorizer: takes::<authorizers::TestBody>()
        gives("isAuthenticated:bool principalId? policyDocuments?[] disconnectAfterInSeconds?:int refreshAfterInSeconds?:int")
        fails("InvalidResponse ResourceNotFound");
    SetDefaultAuthorizer: takes::<authorizers::DefaultBody>() gives("authorizerName authorizerArn") fails("ResourceAlreadyExists ResourceNotFound");
    DescribeDefaultAuthorizer: gives("authorizerDescription{ authorizerName authorizerArn authorizerFunctionArn tokenKeyName? tokenSigningPublicKeys{}
            status:ACTIVE|INACTIVE creationDate:number lastModifiedDate:number signingDisabled:bool enableCachingForHttp:bool }")
        fails("ResourceNotFound");
    ClearDefaultAuthorizer: fails("ResourceNotFound");

    DescribeEndpoint: asks("endpointType?:iot:Data|iot:Data-ATS|iot:Jobs|iot:CredentialProvider") gives("endpointAddress");
    DescribeEventConfigurations: gives("eventConfigurations{* Enabled:bool } creationDate?:number lastModifiedDate?:number");
    UpdateEventConfigurations: takes::<events::Body>();

    GetThingShadow: asks("name?") gives("state:any metadata:any version:int timestamp:int") fails("ResourceNotFound");
    UpdateThingShadow: asks("name?") takes_document() gives("state:any metadata:any version:int timestamp:int clientToken?")
        fails("Conflict UnsupportedDocumentEncoding");
    DeleteThingShadow: asks("name?") gives("version:int timestamp:int") fails("ResourceNotFound");
    ListNamedShadowsForThing: pages(shadows::NAMES) gives("results[] timestamp:int");
    Publish: asks("qos?:int retain?:bool messageExpiry?:int responseTopic? contentType?")
        sends("x-amz-mqtt5-user-properties? x-amz-mqtt5-payload-format-indicator?:UNSPECIFIED_BYTES|UTF8_DATA x-amz-mqtt5-correlation-data?")
        takes_payload() gives("message traceId");
    ListRetainedMessages: pages(retained::MESSAGES) gives("retainedTopics[ topic payloadSize:int qos:int lastModifiedTime:int ]");
    GetRetainedMessage: gives("topic payload qos:int lastModifiedTime:int userProperties?") fails("ResourceNotFound");
    GetConnection: asks("includeSocketInformation?:bool")
        gives("clientId connected:bool thingName? cleanSession:bool sourceIp? sourcePort?:int targetIp? targetPort?:int keepAliveDuration?:int
            connectedSince?:int disconnectedSince?:int sessionExpiry?:int") fails("ResourceNotFound");
    DeleteConnection: asks("cleanSession?:bool preventWillMessage?:bool") fails("ResourceNotFound");
    ListSubscriptions: pages(connections::SUBSCRIPTIONS) gives("subscriptions[ topicFilter qos:int ]") fails("ResourceNotFound");
    AssumeRoleWithCertificate: sends("x-amzn-iot-thingname?") gives("credentials{ accessKeyId secretAccessKey sessionToken expiration }")
        fails("ResourceNotFound");
}
