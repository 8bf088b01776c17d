// Scenarios of mqtt.js over WebSocket. Called as: node mqttjs.mjs SCENARIO URL NAME [CA]
// Ends with 0 when all went well; whatever is wrong is thrown.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const [scenario, url, name, ca] = process.argv.slice(2);
const tls = ca ? { ca: readFileSync(ca) } : {};

function dial(options = {}) {
  // No retries: a refusal is told at once.
  return mqtt.connectAsync(url, { clientId: name, reconnectPeriod: 0, connectTimeout: 8000, ...tls, ...options }, false);
}

// The next messages of a client, in order, as { topic, payload, packet }.
function inbox(client) {
  const waiting = [], ready = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, payload, packet };
    waiting.length ? waiting.shift()(message) : ready.push(message);
  });
  return () => (ready.length ? Promise.resolve(ready.shift()) : new Promise((resolve) => waiting.push(resolve)));
}

const scenarios = {
  async round_trip_4() { await roundTrip(4); },
  async round_trip_5() { await roundTrip(5); },

  async properties() {
    const client = await dial({ protocolVersion: 5, properties: { topicAliasMaximum: 5, receiveMaximum: 10 } });
    const next = inbox(client);
    await client.subscribeAsync(name, { qos: 1, properties: { subscriptionIdentifier: 3 } });
    await client.publishAsync(name, "x", {
      qos: 1,
      properties: {
        contentType: "text/plain", responseTopic: "r", correlationData: Buffer.from([0, 1]),
        messageExpiryInterval: 60, payloadFormatIndicator: true, userProperties: { k: ["v", "w"] },
      },
    });
    const { properties } = (await next()).packet;
    assert.equal(properties.contentType, "text/plain");
    assert.equal(properties.responseTopic, "r");
    assert.deepEqual(properties.correlationData, Buffer.from([0, 1]));
    assert.deepEqual({ ...properties.userProperties }, { k: ["v", "w"] });
    assert.equal(properties.subscriptionIdentifier, 3);
    await client.endAsync();
  },

  // A message of many WebSocket frames, and many messages in one.
  async sizes() {
    const client = await dial({ protocolVersion: 5 });
    const next = inbox(client);
    await client.subscribeAsync(name, { qos: 1 });
    for (const size of [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1_000_000]) {
      await client.publishAsync(name, Buffer.alloc(size, 7), { qos: 1 });
      const { payload } = await next();
      assert.equal(payload.length, size);
      assert.ok(payload.every((byte) => byte === 7));
      reached = `${size} bytes`;
    }
    const count = 2000;
    for (let number = 0; number < count; number++) client.publish(name, String(number), { qos: 0 });
    for (let number = 0; number < count; number++) {
      assert.equal((await next()).payload.toString(), String(number));
      reached = `message ${number}`;
    }
    await client.endAsync();
  },

  async session() {
    const lasting = { protocolVersion: 5, clean: false, properties: { sessionExpiryInterval: 60 } };
    let client = await dial(lasting);
    await client.subscribeAsync(`${name}/t`, { qos: 1 });
    await client.endAsync();
    const other = await dial({ protocolVersion: 5, clientId: `${name}-other` });
    await other.publishAsync(`${name}/t`, "kept", { qos: 1 });
    await other.endAsync();
    client = mqtt.connect(url, { clientId: name, reconnectPeriod: 0, ...tls, ...lasting });
    const next = inbox(client);
    const present = await new Promise((resolve, reject) => {
      client.on("connect", (packet) => resolve(packet.sessionPresent));
      client.on("error", reject);
    });
    assert.ok(present);
    assert.equal((await next()).payload.toString(), "kept");
    await client.endAsync();
  },

  // The will comes when the socket goes away without DISCONNECT.
  async will() {
    const watcher = await dial({ protocolVersion: 5 });
    const next = inbox(watcher);
    await watcher.subscribeAsync(name, { qos: 1 });
    const victim = await dial({ clientId: `${name}-v`, protocolVersion: 5, will: { topic: name, payload: "gone", qos: 1 } });
    victim.stream.destroy();
    assert.equal((await next()).payload.toString(), "gone");
    await watcher.endAsync();
  },

  async refused() {
    await assert.rejects(dial({ protocolVersion: 5 }));
  },
};

async function roundTrip(protocolVersion) {
  const client = await dial({ protocolVersion });
  const next = inbox(client);
  await client.subscribeAsync(`${name}/+`, { qos: 2 });
  for (const qos of [0, 1, 2]) {
    await client.publishAsync(`${name}/${qos}`, `payload ${qos}`, { qos });
    const { topic, payload, packet } = await next();
    assert.deepEqual([topic, payload.toString(), packet.qos], [`${name}/${qos}`, `payload ${qos}`, qos]);
  }
  await client.endAsync();
}

let reached = "the start";
const limit = setTimeout(() => { console.error(`${scenario}: stuck after ${reached} for 25 s`); process.exit(1); }, 25_000);
await scenarios[scenario]();
clearTimeout(limit);
process.exit(0);
