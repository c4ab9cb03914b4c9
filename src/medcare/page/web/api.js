// What the page asks the server for.

export class ServerError extends Error {}

/** Fetch JSON; a server's own words become the error's message. */
export async function getJson(path, options = {}) {
  const response = await request(path, options);
  return response.json();
}

export function postJson(path, body, signal) {
  return getJson(path, { ...asJson(body), signal });
}

/** Exchange a key for a session, which the browser then sends by itself. */
export async function openSession(key) {
  const value = String.fromCharCode(...new TextEncoder().encode(key));
  await request("/api/session", { method: "POST", headers: { Authorization: `Bearer ${value}` } });
}

/** Yield the chunks of a streamed chat completion. */
export async function* streamChat(body, signal) {
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("/v1/chat/completions", { ...asJson(whole), signal });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message);
    yield chunk;
  }
  throw new ServerError("The connection ended before the answer did.");
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server can't be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const error = new ServerError(body.error?.message ?? `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

function asJson(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield part.slice(6);
    }
  }
}
