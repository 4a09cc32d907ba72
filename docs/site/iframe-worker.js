// Browsers start no worker from a file. There, the search's worker runs in a frame of its own, so that the pages can be
// searched without a server. (The theme would fetch a script from elsewhere for this.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = Object.assign(document.createElement("iframe"), { hidden: true, title: "search" });
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inside = new Promise((ready) => {
        const script = Object.assign(inside.document.createElement("script"), { src: url });
        script.onload = () => ready(inside);
        inside.document.body.appendChild(script);
      });
    }

    postMessage(data) {
      this.inside.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
