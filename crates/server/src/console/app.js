// The console: what is, kept fresh by events, and the commands.

import { patch, h } from "./dom.js";
import { get, health, listen, post, token } from "./api.js";
import { confirm, deploy, fault, login, needsLogin, notice } from "./dialogs.js";
import * as views from "./views.js";

/** Events kept of the chosen deployment. */
const LOG_MAX = 30;
/** Time between two looks at what no event tells: what nodes report. */
const LOOK_MS = 2000;

const state = { clusters: [], nodes: [], deployments: [], modules: [], selected: null, detail: null, analysis: null, log: [], filter: "",
  connected: false, health: null, user: null, entered: false };

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    patch(document.getElementById("top"), views.top(state, act));
    patch(document.getElementById("main"), !state.entered ? [] : [
      views.environments(state),
      h("div", { class: "split", key: "split" }, views.deployments(state, act), views.detail(state, act)),
      views.modules(state, act),
      views.nodes(state, act),
    ]);
  });
}

/** Runs one at a time, and once more if asked meanwhile. */
function once(work) {
  let running = false;
  let again = false;
  return async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        if (error.status === 401) await enter();
        else if (error.status) fault(error);
      }
    } while (again);
    running = false;
    draw();
  };
}

const refreshFleet = once(async () => {
  [state.clusters, state.nodes, state.health] = await Promise.all([get("/clusters"), get("/nodes?limit=1000"), health()]);
});
const refreshModules = once(async () => {
  state.modules = await get("/modules?limit=1000");
});
const refreshDeployments = once(async () => {
  state.deployments = await get("/deployments?limit=25");
  if (!state.selected && state.deployments.length) act.select(state.deployments[0].executionId);
});
const refreshDetail = once(async () => {
  const id = state.selected;
  if (!id) return;
  const [detail, analysis] = await Promise.all([get(`/deployments/${id}`), get(`/deployments/${id}/analysis`)]);
  if (id === state.selected) Object.assign(state, { detail, analysis });
});

function note(event) {
  if (event.executionId !== state.selected || event.event === "EvidenceRecorded" || !event.message) return;
  if (state.log.some((known) => known.seq === event.seq)) return;
  state.log = [event, ...state.log].sort((a, b) => b.seq - a.seq).slice(0, LOG_MAX);
}

const act = {
  async select(id) {
    Object.assign(state, { selected: id, detail: id === state.detail?.executionId ? state.detail : null, analysis: null, log: [] });
    draw();
    await refreshDetail();
    try {
      const why = await get(`/deployments/${id}/why`);
      if (id !== state.selected) return;
      why.decisions.slice(-LOG_MAX).forEach((decision) => note({ ...decision, executionId: id }));
      draw();
    } catch (error) {
      fault(error);
    }
  },
  deploy(_event, module, version) {
    deploy(state, module, version, (id) => {
      act.select(id);
      refreshDeployments();
    });
  },
  control(verb, name, d) {
    const words = {
      pause: "It stops moving forward; harm is still detected and taken back.",
      resume: "It moves forward again.",
      skip: "The current step's gate is passed by your word.",
      promote: "All gates are passed by your word; nodes must still be healthy.",
      abort: "It ends, and what it changed is taken back at once.",
      rollback: `${d.targetEnvironment} returns to the release before it, on all nodes at once, and ${d.version} is put on hold.`,
    }[verb];
    confirm(`${name}: ${d.moduleName} ${d.version} to ${d.targetEnvironment}`, words, name, async () => {
      const answer = await post(`/deployments/${d.executionId}/${verb}`);
      notice(`${name}: ${answer.status}`);
      if (answer.rollbackId) act.select(answer.rollbackId);
    }, [], verb === "abort" || verb === "rollback");
  },
  approval(verb, name, d) {
    confirm(`${name}: ${d.moduleName} ${d.version} to ${d.targetEnvironment}`, `Asked for by ${d.requesterEmail}.`, name, async (values) => {
      await post(`/approvals/deployments/${d.executionId}/${verb}`, { approverEmail: values.email, reason: values.reason || null });
      notice(`${name}: done`);
    }, [{ name: "email", label: "Your e-mail", type: "email", required: true, value: localStorage.getItem("hotswap-email") ?? "" },
      { name: "reason", label: "Why" }]);
  },
  release(verb, module, version) {
    const [name, words] = {
      hold: ["Hold", "No promotion takes it until the hold is lifted. What runs it keeps it."],
      unhold: ["Lift the hold", "Promotions take it again."],
      yank: ["Withdraw", "It can't be deployed any more. What runs it keeps it."],
      unyank: ["Offer again", "It can be deployed again."],
    }[verb];
    const asks = verb === "hold" || verb === "yank";
    confirm(`${name}: ${module} ${version}`, words, name, async (values) => {
      await post(`/modules/${module}/versions/${encodeURIComponent(version)}/${verb}`, asks ? { reason: values.reason } : {});
      notice(`${module} ${version}: done`);
      refreshModules();
    }, asks ? [{ name: "reason", label: "Why", required: true }] : [], verb === "yank");
  },
  node(verb, node) {
    const drains = verb === "drain";
    confirm(`${drains ? "Drain" : "Undrain"} ${node.nodeId}`,
      drains ? `It gets no more requests as soon as ${node.environment} can spare it, within ten minutes in any case.` : "It serves again, with what is stable by then.",
      drains ? "Drain" : "Undrain", async (values) => {
        await post(`/nodes/${node.nodeId}/${verb}`, drains ? { reason: values.reason } : {});
        notice(`${node.nodeId}: ${drains ? "is being drained" : "serves again"}`);
        refreshFleet();
      }, drains ? [{ name: "reason", label: "Why" }] : []);
  },
  filter(text) {
    state.filter = text;
    draw();
  },
  theme() {
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("hotswap-theme", document.documentElement.dataset.theme);
  },
  logout() {
    token.clear();
    location.reload();
  },
};

function heard(_kind, event) {
  note(event);
  if (event.executionId) {
    if (event.event !== "EvidenceRecorded") refreshDeployments();
    if (event.executionId === state.selected) refreshDetail();
  }
  if (event.event.startsWith("Release")) refreshModules();
  if (event.event.startsWith("Node") || event.event === "StableSet") refreshFleet();
  if (event.event === "StableSet") refreshModules();
  draw();
}

let entering = null;
/** Waits until somebody has logged in. */
function enter() {
  entering ??= new Promise((entered) => {
    token.clear();
    state.entered = false;
    draw();
    login((answer) => {
      token.set(answer.token);
      state.user = answer.user.username;
      entering = null;
      state.entered = true;
      entered();
    });
  });
  return entering;
}

async function begin() {
  const theme = localStorage.getItem("hotswap-theme");
  if (theme) document.documentElement.dataset.theme = theme;
  draw();
  for (;;) {
    try {
      if (await needsLogin()) await enter();
      break;
    } catch {
      await new Promise((wake) => setTimeout(wake, LOOK_MS));
    }
  }
  state.entered = true;
  try {
    state.user ??= (await get("/authentication/me")).username;
  } catch {
    // Only the button that logs out goes without a name.
  }
  listen(heard, (connected) => {
    state.connected = connected;
    // What happened while nobody listened.
    if (connected) [refreshFleet, refreshModules, refreshDeployments, refreshDetail].forEach((refresh) => refresh());
    draw();
  });
  setInterval(() => {
    if (document.hidden) return;
    refreshFleet();
    if (["Running", "Paused"].includes(state.detail?.status)) refreshDetail();
  }, LOOK_MS);
}

begin();
