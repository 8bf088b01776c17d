// Scenarios of the AWS IoT device SDKs for JavaScript, v2 and v1, as applications use them.
// Called as: node jssdk.mjs SCENARIO, with options in JSON on standard input.
// The report, in JSON, goes to standard output; whatever is wrong otherwise is thrown.

import { readFileSync, writeSync } from "node:fs";
import v1 from "aws-iot-device-sdk";
import { auth, iot, iotidentity, iotshadow, mqtt, mqtt5 } from "aws-iot-device-sdk-v2";

const [scenario] = process.argv.slice(2);
const options = JSON.parse(readFileSync(0));
const { name, region } = options;
const COUNT = 5;

class Refused extends Error {}

// Values in order, for somebody who waits for the next one.
class Inbox {
  #waiting = [];
  #ready = [];
  put(value) { this.#waiting.length ? this.#waiting.shift()(value) : this.#ready.push(value); }
  next() { return this.#ready.length ? Promise.resolve(this.#ready.shift()) : new Promise((take) => this.#waiting.push(take)); }
  async take(count) {
    const taken = [];
    while (taken.length < count) taken.push(await this.next());
    return taken;
  }
}

const text = (payload) => Buffer.from(payload).toString();

function credentialsProvider() {
  const { accessKey, secretKey, sessionToken } = options.credentials;
  return auth.AwsCredentialsProvider.newStatic(accessKey, secretKey, sessionToken);
}

// SDK v2, MQTT 3.1.1.
class Client311 {
  messages = new Inbox();
  interrupted = new Inbox();

  constructor(more) {
    const { id, certificate, key, inMemory, authorizer } = { id: name, ...options, ...more };
    const Builder = iot.AwsIotMqttConnectionConfigBuilder;
    let builder;
    if (authorizer) {
      const { username, password, name, signature, keyName, token, isDirect } = authorizer;
      builder = isDirect ? Builder.new_default_builder() : Builder.new_builder_for_websocket();
      builder.with_custom_authorizer(username, name, signature, password, keyName, token);
    } else if (inMemory) builder = Builder.new_mtls_builder(certificate, key);
    else if (certificate) builder = Builder.new_mtls_builder_from_path(certificate, key);
    else builder = Builder.new_with_websockets({ region, credentials_provider: credentialsProvider() });
    if (options.ca) builder.with_certificate_authority_from_path(undefined, options.ca);
    builder.with_endpoint("localhost").with_port(options.port).with_client_id(id).with_clean_session(true);
    this.protocol = new mqtt.MqttClient().new_connection(builder.build());
    this.protocol.on("message", (topic, payload) => this.messages.put({ topic, payload: text(payload) }));
    this.protocol.on("interrupt", () => this.interrupted.put(true));
  }

  async connect() {
    try {
      await this.protocol.connect();
    } catch (error) {
      // It is a string.
      throw new Refused(error);
    }
    return this;
  }

  async subscribe(filter) { return (await this.protocol.subscribe(filter, mqtt.QoS.AtLeastOnce)).qos; }

  // Resolves on PUBACK, which has no reason code.
  async publish(topic, payload) {
    await this.protocol.publish(topic, payload, mqtt.QoS.AtLeastOnce);
    return 0;
  }

  service(Service, limits) { return Service.newFromMqtt311(this.protocol, limits); }
  async end() { await this.protocol.disconnect(); }
}

// SDK v2, MQTT 5.
class Client5 {
  messages = new Inbox();

  constructor(more) {
    const { id, certificate, key, inMemory, authorizer } = { id: name, ...options, ...more };
    const Builder = iot.AwsIotMqtt5ClientConfigBuilder;
    let builder;
    if (authorizer) {
      const { username, password, name, signature, keyName, token, isDirect } = authorizer;
      const given = { username, password, authorizerName: name, tokenSignature: signature, tokenKeyName: keyName, tokenValue: token };
      builder = Builder[isDirect ? "newDirectMqttBuilderWithCustomAuth" : "newWebsocketMqttBuilderWithCustomAuth"]("localhost", given);
    } else if (inMemory) builder = Builder.newDirectMqttBuilderWithMtlsFromMemory("localhost", certificate, key);
    else if (certificate) builder = Builder.newDirectMqttBuilderWithMtlsFromPath("localhost", certificate, key);
    else builder = Builder.newWebsocketMqttBuilderWithSigv4Auth("localhost", { region, credentialsProvider: credentialsProvider() });
    if (options.ca) builder.withCertificateAuthorityFromPath(undefined, options.ca);
    builder.withPort(options.port).withConnectProperties({ clientId: id, keepAliveIntervalSeconds: 60 });
    this.protocol = new mqtt5.Mqtt5Client(builder.build());
    this.protocol.on("messageReceived", ({ message: { topicName, payload, contentType, userProperties } }) => {
      this.messages.put({ topic: topicName, payload: text(payload ?? ""), contentType, userProperties });
    });
  }

  connect() {
    return new Promise((resolve, reject) => {
      this.protocol.on("connectionSuccess", () => resolve(this));
      this.protocol.on("connectionFailure", ({ error, connack }) => {
        reject(new Refused(connack ? mqtt5.ConnectReasonCode[connack.reasonCode] : error.message));
      });
      this.protocol.start();
    });
  }

  async subscribe(filter) {
    const packet = { subscriptions: [{ topicFilter: filter, qos: mqtt5.QoS.AtLeastOnce }] };
    return (await this.protocol.subscribe(packet)).reasonCodes[0];
  }

  async publish(topicName, payload) {
    const packet = { topicName, payload, qos: mqtt5.QoS.AtLeastOnce, contentType: "text/plain", userProperties: [{ name: "k", value: "v" }] };
    return (await this.protocol.publish(packet)).reasonCode;
  }

  service(Service, limits) { return Service.newFromMqtt5(this.protocol, limits); }

  async end() {
    const stopped = new Promise((resolve) => this.protocol.on("stopped", resolve));
    this.protocol.stop();
    await stopped;
    this.protocol.close();
  }
}

// SDK v1, its device or its thing shadow: MQTT 3.1.1.
function optionsV1(id = name) {
  const { port, ca, certificate, key, credentials, authorizer } = options;
  // A refusal is told at once; what waits for a connection leaves at once.
  const common = { host: "localhost", port, region, clientId: id, baseReconnectTimeMs: 20_000, drainTimeMs: 1 };
  if (certificate) return { ...common, keyPath: key, certPath: certificate, caPath: ca, ALPNProtocols: ["x-amzn-mqtt-ca"] };
  if (authorizer) {
    const { name, signature, keyName, token } = authorizer;
    const customAuthHeaders = { "X-Amz-CustomAuthorizer-Name": name, "X-Amz-CustomAuthorizer-Signature": signature, [keyName]: token };
    return { ...common, protocol: "wss-custom-auth", customAuthHeaders, websocketOptions: { ca: readFileSync(ca) } };
  }
  const { accessKey: accessKeyId, secretKey, sessionToken } = credentials;
  return { ...common, protocol: "wss", accessKeyId, secretKey, sessionToken, websocketOptions: { ca: readFileSync(ca) } };
}

function connectedV1(client) {
  return new Promise((resolve, reject) => {
    client.on("connect", () => resolve(client));
    client.on("error", (error) => reject(new Refused(error.message)));
    client.on("close", () => reject(new Refused("closed")));
  });
}

class ClientV1 {
  messages = new Inbox();
  interrupted = new Inbox();

  constructor({ id } = {}) {
    this.device = new v1.device(optionsV1(id));
    this.device.on("message", (topic, payload) => this.messages.put({ topic, payload: text(payload) }));
    this.device.on("close", () => this.interrupted.put(true));
  }

  async connect() {
    await connectedV1(this.device);
    return this;
  }

  subscribe(filter) {
    return new Promise((resolve, reject) => {
      this.device.subscribe(filter, { qos: 1 }, (error, granted) => (error ? reject(error) : resolve(granted[0].qos)));
    });
  }

  publish(topic, payload) {
    return new Promise((resolve, reject) => {
      this.device.publish(topic, payload, { qos: 1 }, (error) => (error ? reject(error) : resolve(0)));
    });
  }

  end(force = false) { return new Promise((resolve) => this.device.end(force, resolve)); }
}

const CLIENTS = { "3.1.1": Client311, 5: Client5, v1: ClientV1 };
const dial = (more) => new CLIENTS[options.client](more).connect();

const LIMITS = { maxRequestResponseSubscriptions: 4, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 20 };

// What a service refuses, as the SDK tells it.
async function refusal(request) {
  try {
    await request;
  } catch (error) {
    return error.modeledError ?? { description: error.message };
  }
  throw new Error("it is not refused");
}

const scenarios = {
  async round_trip() {
    const client = await dial();
    const subscribed = await client.subscribe(`${name}/#`);
    const published = [];
    for (let number = 0; number < COUNT; number++) published.push(await client.publish(`${name}/${number}`, String(number)));
    const messages = await client.messages.take(COUNT);
    await client.end();
    return { subscribed, published, messages };
  },

  // Each of the clients: whether it is let in, or why not.
  async connect() {
    const attempts = Object.entries(CLIENTS).map(async ([version, Client]) => {
      try {
        await (await new Client({ id: `${name}-${version}` }).connect()).end();
        return [version, "connected"];
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        return [version, error.message];
      }
    });
    return Object.fromEntries(await Promise.all(attempts));
  },

  // Topics outside of the policy, then one of it, if the connection is there still.
  async denied() {
    const client = await dial();
    const subscribed = [await client.subscribe(`${name}/denied`), await client.subscribe(`${name}/allowed`)];
    const publish = client.publish(`${name}/denied`, "denied").catch((error) => error.message);
    if (client.interrupted) {
      const ended = await client.interrupted.next();
      // It would connect and publish again and again.
      await client.end(true);
      return { subscribed, ended };
    }
    const published = [await publish, await client.publish(`${name}/allowed`, "allowed")];
    const messages = await client.messages.take(1);
    await client.end();
    return { subscribed, published, messages };
  },

  async shadow() {
    const client = await dial();
    const service = client.service(iotshadow.IotShadowClientv2, LIMITS);
    const { shadow } = options, target = { thingName: name, ...(shadow && { shadowName: shadow }) };
    const call = (operation, more) => service[operation + (shadow ? "NamedShadow" : "Shadow")]({ ...target, ...more });
    const stream = service[shadow ? "createNamedShadowDeltaUpdatedStream" : "createShadowDeltaUpdatedStream"](target);
    const deltas = new Inbox(), statuses = new Inbox();
    stream.on("incomingPublish", ({ message }) => deltas.put(message));
    stream.on("subscriptionStatus", ({ type }) => statuses.put(type));
    stream.open();
    // The SDK does not export the name of 0, which is SubscriptionEstablished.
    const report = { subscription: await statuses.next() };
    report.absent = await refusal(call("get"));
    report.updated = await call("update", { state: { desired: { on: true }, reported: { on: false } } });
    report.delta = await deltas.next();
    report.got = await call("get");
    report.reported = await call("update", { state: { reported: { on: true } }, version: 1 });
    report.conflict = await refusal(call("update", { state: { reported: { on: false } }, version: 1 }));
    report.wrong = await refusal(call("update", { state: { desired: "no object" } }));
    report.deleted = await call("delete");
    report.gone = await refusal(call("delete"));
    service.close();
    await client.end();
    return report;
  },

  // By claim; the device comes back with what it was given.
  async provisioning() {
    const claim = await dial({ id: `${name}-claim` });
    const service = claim.service(iotidentity.IotIdentityClientv2, LIMITS);
    const made = await service.createKeysAndCertificate({});
    const { template, parameters } = options, { certificateOwnershipToken } = made;
    const registered = await service.registerThing({ templateName: template, certificateOwnershipToken, parameters });
    const again = await refusal(service.registerThing({ templateName: template, certificateOwnershipToken, parameters }));
    service.close();
    await claim.end();
    const own = { id: registered.thingName, inMemory: true, certificate: made.certificatePem, key: made.privateKey };
    const device = await dial(own);
    const published = await device.publish(`${name}/provisioned`, "here");
    await device.end();
    return { certificateId: made.certificateId, registered, again, published };
  },

  async provisioning_refused() {
    const claim = await dial({ id: `${name}-claim` });
    const service = claim.service(iotidentity.IotIdentityClientv2, LIMITS);
    const { template, parameters } = options;
    const { certificateOwnershipToken } = await service.createKeysAndCertificate({});
    const register = (more) => refusal(service.registerThing({ templateName: template, certificateOwnershipToken, parameters, ...more }));
    const report = {
      token: await register({ certificateOwnershipToken: "x".repeat(64) }),
      parameters: await register({ parameters: {} }),
      request: await refusal(service.createCertificateFromCsr({ certificateSigningRequest: "no request" })),
    };
    service.close();
    await claim.end();
    return report;
  },

  async thing_shadow() {
    const shadows = new v1.thingShadow(optionsV1());
    await connectedV1(shadows);
    const application = await dial({ id: `${name}-application` });
    const statuses = new Inbox(), deltas = new Inbox(), foreign = new Inbox();
    shadows.on("status", (thing, status, token, state) => statuses.put({ thing, status, state }));
    shadows.on("delta", (thing, state) => deltas.put(state));
    shadows.on("foreignStateChange", (thing, operation, state) => foreign.put({ operation, state }));
    await new Promise((resolve, reject) => shadows.register(name, { qos: 1 }, (error, failed) => {
      error ? reject(new Error(`${error}: ${JSON.stringify(failed)}`)) : resolve();
    }));
    const call = (operation, ...words) => {
      if (shadows[operation](name, ...words) === null) throw new Error(`${operation} is not carried out`);
      return statuses.next();
    };
    const report = { absent: await call("get") };
    report.updated = await call("update", { state: { reported: { on: false } } });
    await application.publish(`$aws/things/${name}/shadow/update`, JSON.stringify({ state: { desired: { on: true } } }));
    report.foreign = await foreign.next();
    report.delta = await deltas.next();
    report.reported = await call("update", { state: { reported: { on: true } } });
    report.got = await call("get");
    report.wrong = await call("update", { state: { desired: "no object" } });
    report.deleted = await call("delete");
    report.gone = await call("delete");
    await application.end();
    await new Promise((resolve) => shadows.end(false, resolve));
    return report;
  },
};

setTimeout(() => { console.error(`${scenario}: stuck for 25 s`); process.exit(1); }, 25_000);
writeSync(1, JSON.stringify(await scenarios[scenario]()));
process.exit(0);
