// Questions to the server: each is answered with data, a map, or a reason in words.

/** A refusal of the server in words for the reader; `status` is the status of the answer, 0 where none came. */
export class Refusal extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

// The server keeps the newest request of each view apart by tab.
export const TAB = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal('The server does not answer. Is vis_explore still running?', 0);
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  throw new Refusal((said && said.error) || `The server answered ${response.status}.`, response.status);
}

export const askJson = async (path, options) => (await ask(path, options)).json();

/** What a user need not hear of: a newer request took the place of this one, or the page withdrew it. */
export const isPassing = (error) => error.name === 'AbortError' || error.status === 409 || error.status === 499;

export function addressOf(path, values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return `${path}?${new URLSearchParams(given)}`;
}

/** The maps of an answer as float32 arrays that share its buffer: no copy is made. */
export function decodeMaps(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const said = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  for (const map of said.maps) {
    map.values = new Float32Array(buffer, 4 + length + 4 * map.offset, map.height * map.width * map.channels);
  }
  return said;
}

export async function askMaps(values, signal) {
  const response = await ask(addressOf('map', { ...values, tab: TAB }), { signal });
  return decodeMaps(await response.arrayBuffer());
}

/** One request in flight and the newest of those that wait; the ones between are dropped. */
export class Newest {
  /**
   * @param {(request: object, signal: AbortSignal) => Promise<void>} work Answers a request; handles its own errors.
   * @param {(busy: boolean) => void} tell Called when work begins and when nothing is left to do.
   */
  constructor(work, tell) {
    Object.assign(this, { work, tell, running: null, waiting: null });
  }

  ask(request) {
    if (this.running) this.waiting = request;
    else this.#run(request);
  }

  /** Forgets what waits and withdraws what runs. */
  drop() {
    this.waiting = null;
    if (this.running) this.running.abort();
  }

  async #run(first) {
    this.tell(true);
    for (let request = first; request; request = this.waiting) {
      this.waiting = null;
      this.running = new AbortController();
      await this.work(request, this.running.signal);
    }
    this.running = null;
    this.tell(false);
  }
}
