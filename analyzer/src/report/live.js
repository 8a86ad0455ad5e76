// Asks for this page again every two seconds, and puts the new one in place when something changed:
// a run that is being recorded grows before one's eyes. What is open, typed or in focus stays.
"use strict";
(() => {
  const status = document.getElementById("live");
  let version = null;
  let failures = 0;
  const busy = () => {
    const active = document.activeElement;
    return document.hidden || (active && /^(INPUT|TEXTAREA|SELECT)$/.test(active.tagName) && active.type !== "radio")
      || document.querySelector("input:checked") || String(document.getSelection() ?? "").length > 0;
  };
  const look = async () => {
    if (!busy()) {
      try {
        const headers = version ? { "If-None-Match": '"' + version + '"' } : {};
        const answer = await fetch(location.href, { headers, cache: "no-store" });
        failures = 0;
        const found = answer.headers.get("ETag")?.replaceAll('"', "") ?? null;
        if (answer.status === 200 && found && version && found !== version) replace(await answer.text());
        if (found) version = found;
        if (!found) return;
        status.textContent = "\u25cf live";
      } catch {
        failures += 1;
        status.textContent = failures > 1 ? "the server does not answer" : status.textContent;
      }
    }
    setTimeout(look, 2000);
  };
  const replace = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("content");
    const old = document.getElementById("content");
    if (!fresh || !old) return;
    const open = Array.from(old.querySelectorAll("details")).map((fold) => fold.open);
    Array.from(fresh.querySelectorAll("details")).forEach((fold, at) => { if (at in open) fold.open = open[at]; });
    old.replaceWith(document.adoptNode(fresh));
    document.dispatchEvent(new Event("retake:replaced"));
  };
  look();
})();
