// The REST API and its events. The token lives in this tab only.

const BASE = "api/v1";
const TOKEN = "hotswap-token";

/** Why a request failed: the API's own words. */
export class ApiError extends Error {
  constructor(status, document) {
    super(document?.error ?? `the server answered ${status}`);
    this.status = status;
    this.details = document?.details ?? [];
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  clear: () => sessionStorage.removeItem(TOKEN),
};

function headers(more) {
  const known = token.get();
  return { ...(known ? { authorization: `Bearer ${known}` } : {}), ...more };
}

async function answered(response) {
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = null;
  }
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

export const get = async (path) => answered(await fetch(`${BASE}${path}`, { headers: headers() }));

export async function post(path, body) {
  const sent = headers({ "content-type": "application/json", "idempotency-key": crypto.randomUUID?.() ?? String(Math.random()) });
  return answered(await fetch(`${BASE}${path}`, { method: "POST", headers: sent, body: JSON.stringify(body ?? {}) }));
}

/** The server's own health, outside the API's base. */
export const health = async () => answered(await fetch("health", { headers: headers() }));

/**
 * Hears events until the page goes, going on after the last one heard wherever the connection breaks.
 * Not an EventSource: that can't send the token.
 */
export async function listen(heard, connected) {
  let last = null;
  let pause = 500;
  for (;;) {
    try {
      const response = await fetch(`${BASE}/events`, { headers: headers(last === null ? {} : { "last-event-id": last }) });
      if (!response.ok) throw new ApiError(response.status, null);
      connected(true);
      pause = 500;
      let text = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        let end;
        while ((end = text.indexOf("\n\n")) >= 0) {
          const event = parse(text.slice(0, end));
          text = text.slice(end + 2);
          if (event.id) last = event.id;
          if (event.data) heard(event.kind, JSON.parse(event.data));
        }
      }
    } catch {
      // Told by the sign in the header; tried again below.
    }
    connected(false);
    await new Promise((wake) => setTimeout(wake, pause));
    pause = Math.min(pause * 2, 8000);
  }
}

function parse(text) {
  const event = { id: "", kind: "", data: "" };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "id") event.id = value;
    if (field === "event") event.kind = value;
    if (field === "data") event.data += value;
  }
  return event;
}
