"""Lab: MAXL variants on glyphs, families of a seed's own held-out draw. python lab.py OUT SEEDS name:opt=val,opt=val ..."""
import sys, json, time, math, numpy as np, torch, torch.nn.functional as F
from torch import nn
sys.path.insert(0,'/tmp/w-maxl-says')
torch.set_num_threads(1)
from lightning_priors.nn import Classifier
from lightning_priors.hypergradient import InnerStep, RandomState, named_gradients
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask, masked_softmax, sinkhorn
from lightning_priors.functional.focal import per_class_losses
from lightning_priors.metrics.mutual_information import adjusted_mutual_information
from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
import os
OWN=os.environ.get('OWN','')
D=np.load('/tmp/maxl/glyphs_dev.npz')
PSI=[10,10,9,9,9]; A=47; K=5
MASK=hierarchy_mask(PSI)
FAM=np.array([f.split('-')[0].split('_')[0].rstrip('0123456789') for f in D['fam']])
FAM=np.array(['Free'+f[4:8] if f.startswith('Free') else f[:8] for f in FAM])
def data(seed):
    if OWN:
        d=np.load(f'/tmp/maxl/{OWN}{seed}.npz'); x=torch.from_numpy(d['images']).permute(0,3,1,2).float()/255
        x=(x-torch.tensor(IMAGE_MEAN).view(1,3,1,1))/torch.tensor(IMAGE_STD).view(1,3,1,1)
        y,c,va=torch.from_numpy(d['y']),torch.from_numpy(d['c']),d['va']
        rank=np.zeros(A,int); st=np.cumsum([0]+PSI); group=np.zeros(A,int); group[c.numpy()]=y.numpy()
        for k in range(K): rank[np.where(group==k)[0]]=st[k]+np.arange(PSI[k])
        c=torch.from_numpy(rank)[c]
        return x[~va],y[~va],c[~va],x[va],y[va],c[va]
    fams=sorted(set(FAM)); r=np.random.default_rng(seed); held=set(r.permutation(fams)[:len(fams)//3].tolist())
    va=np.array([f in held for f in FAM])
    x=torch.from_numpy(D['images']).permute(0,3,1,2).float()/255
    x=(x-torch.tensor(IMAGE_MEAN).view(1,3,1,1))/torch.tensor(IMAGE_STD).view(1,3,1,1)
    y,c=torch.from_numpy(D['y']),torch.from_numpy(D['c'])
    return x[~va],y[~va],c[~va],x[va],y[va],c[va]
def auroc(scores,y):
    out=[]
    for k in range(K):
        s=scores[:,k].double(); p=s[y==k]; n=s[y!=k]
        o=torch.argsort(s); ranks=torch.empty(len(s),dtype=torch.double); ranks[o]=torch.arange(1,len(s)+1,dtype=torch.double)
        out.append(((ranks[y==k].sum()-len(p)*(len(p)+1)/2)/(len(p)*len(n))).item())
    return sum(out)/K
def mi(q,y):
    """bits said of the image beyond its class, share of possible"""
    t=0;b=0
    for k in range(K):
        qq=q[y==k]
        if not len(qq): continue
        m=qq.mean(0); H=lambda p:-torch.xlogy(p,p).sum(-1)
        i=(H(m)-H(qq).mean()).item(); b+=i/math.log(2)*len(qq); t+=i/math.log(PSI[k])*len(qq)
    return b/len(q),t/len(q)
def ami_within(choice,c,y):
    v=[]
    for k in range(K):
        s=y==k; a,b=choice[s],c[s]
        v.append(float(adjusted_mutual_information(torch.zeros(A,A).index_put_((a,b),torch.tensor(1.),accumulate=True))))
    return float(np.nanmean(v))
class Net(nn.Module):
    def __init__(s):
        super().__init__(); s.classifier=Classifier(K,'tiny'); s.auxiliary=nn.Linear(128,A)
    def forward(s,x):
        f=s.classifier.backbone(x); l,_=s.classifier.head(f); m=f.mean((2,3)); return l,s.auxiliary(m),m
def jitter(x,g,shift=2/24.,turn=.1,scale=.1):
    B=len(x); r=lambda: torch.rand(B,generator=g)*2-1
    a=turn*r(); sc=1+scale*r(); sh=turn*r()
    th=torch.zeros(B,2,3); th[:,0,0]=sc*a.cos(); th[:,0,1]=-a.sin()+sh; th[:,1,0]=a.sin(); th[:,1,1]=sc*a.cos(); th[:,:,2]=shift*torch.stack([r(),r()],1)
    return F.grid_sample(x,F.affine_grid(th,x.shape,align_corners=False),align_corners=False,padding_mode='border')
DEF=dict(mode='none',within=0,gamma=2.,auxw=1.,epochs=12,lr=2e-3,wd=1e-2,bs=32,every=5,glr=1e-3,gwd=5e-4,balance='sinkhorn',temp=1.,gen='features',meta='next',
 hard=0,info=0.,infoH=1.,cons=0.,nometa=0,entw=.2,aug=0,gview='self',gext=0,noise=0.,warm=0,weights=0,wlr=0.)
def run(o,seed):
    o={**DEF,**o}; t0=time.time()
    x,y,c,xv,yv,cv=data(seed); torch.manual_seed(seed); net=Net(); g=torch.Generator().manual_seed(seed+1000)
    N=len(x); steps=o['epochs']*math.ceil(N/o['bs'])
    dec=[p for p in net.parameters() if p.ndim>1]; nod=[p for p in net.parameters() if p.ndim<=1]
    opt=torch.optim.AdamW([dict(params=dec,weight_decay=o['wd']),dict(params=nod,weight_decay=0.)],lr=o['lr'])
    mode=o['mode']; maxl=mode=='maxl'
    if mode=='human':
        lab=c
        if o['noise']: swap=torch.rand(N,generator=g)<o['noise']; lab=torch.where(swap,rand_labels(y,g),c)
    if mode=='random': lab=torch.cat([torch.zeros(0,dtype=torch.long)]); lab=rand_labels(y,g)
    if mode=='kmeans': lab=kmeans(x,y,seed)
    logs={}
    if maxl:
        torch.manual_seed(seed+5)
        if o['gen']=='features': gen=nn.Sequential(nn.Linear(128,128),nn.ReLU(),nn.Linear(128,A)); emb=None
        else:
            from lightning_priors.nn import Backbone
            emb=Backbone('tiny'); gen=nn.Sequential(emb,nn.AdaptiveAvgPool2d(1),nn.Flatten(),nn.Linear(128,A))
        wgen=nn.Sequential(nn.Linear(128,64),nn.ReLU(),nn.Linear(64,1)); nn.init.zeros_(wgen[2].weight); nn.init.zeros_(wgen[2].bias)
        wopt=torch.optim.Adam(wgen.parameters(),lr=o['wlr'] or 1e-3)
        gopt=torch.optim.Adam(gen.parameters(),lr=o['glr'],weight_decay=o['gwd'])
        if o['kinit']:
            pass
    params=dict(net.named_parameters())
    def aux_losses(z,yy):
        if o['within']: z=z.masked_fill(~MASK[yy],-1e4)
        return per_class_losses(z,o['gamma'])
    pend=None; t=0; acc_log={}
    def note(k,v): acc_log.setdefault(k,[]).append(float(v))
    for ep in range(o['epochs']):
        net.train(); order=torch.randperm(N,generator=g); pend=None
        for b in range(0,N,o['bs']):
            idx=order[b:b+o['bs']]; xx,yy=x[idx],y[idx]
            if o['aug']: xx=jitter(xx,g)
            f=.5*(1+math.cos(math.pi*t/steps))
            for gr in opt.param_groups: gr['lr']=o['lr']*f
            l,z,m=net(xx); pri=F.cross_entropy(l,yy); loss=pri
            if mode in('human','random','kmeans'):
                loss=loss+o['auxw']*aux_losses(z,yy).gather(1,lab[idx][:,None]).mean()
                gr=named_gradients(loss,params)
            elif mode=='uniform':
                q=MASK[yy].float(); q=q/q.sum(1,keepdim=True); loss=loss+o['auxw']*(q*aux_losses(z,yy)).sum(1).mean(); gr=named_gradients(loss,params)
            elif not maxl: gr=named_gradients(loss,params)
            else:
                for gg in gopt.param_groups: gg['lr']=o['glr']*(f if not o.get('gconst') else 1)
                due=(b//o['bs'])%o['every']==0
                if pend is not None:
                    v=named_gradients(pri,params,None,True)
                    if o['meta'] in('jit','mix'):
                        from lightning_priors.hypergradient import call_at
                        if o['meta']=='jit': L2=F.cross_entropy(call_at(net,(jitter(xx,g),))[0],yy)
                        else:
                            lam=float(torch.distributions.Beta(1.,1.).sample()); pm=torch.randperm(len(xx),generator=g); ll=call_at(net,(lam*xx+(1-lam)*xx[pm],))[0]; L2=lam*F.cross_entropy(ll,yy)+(1-lam)*F.cross_entropy(ll,yy[pm])
                        v=named_gradients(L2,params)
                    px,py,pq,plogit,st,pw=pend; pend=None
                    both=st.label_gradient((px,),lambda out:torch.cat([aux_losses(out[1],py),F.cross_entropy(out[0],py,reduction='none')[:,None]],1),v)
                    d=both[:,:A]*o['auxw']
                    if o['weights']:
                        dw=both[:,A] if o['weights']==1 else (d*pq.detach()).sum(1); dw=dw-dw.mean(); dw=dw/dw.square().mean().sqrt().clamp_min(1e-20)/len(py)
                        wopt.zero_grad(); (dw*pw).sum().backward(); wopt.step()
                    mk=MASK[py]; cen=(d-(d*mk).sum(1,keepdim=True)/mk.sum(1,keepdim=True))*mk
                    s=(cen.square().sum()/mk.sum()).sqrt()
                    note('meta_rms',s*len(py))
                    asked=cen/s/len(py) if s>0 else cen*0
                    gl=(0 if o['nometa'] else 1)*(asked*pq).sum()+guard(o,gen,plogit,pq,py,px,g,note)
                    gopt.zero_grad(); gl.backward(); gopt.step()
                with torch.set_grad_enabled(due):
                    inp=m.detach() if o['gen']=='features' else xx
                    logit=gen(inp); q=labels_of(o,logit,yy,g,note)
                with torch.no_grad(): pass
                aux=o['auxw']*(q.detach()*aux_losses(z,yy)).sum(1).mean()
                with torch.set_grad_enabled(due): w=2*torch.sigmoid(wgen(m.detach())[:,0]); w=w/w.mean()
                if o['weights']==1: pri_w=(w.detach()*F.cross_entropy(l,yy,reduction='none')).mean(); note('wstd',w.detach().std())
                else: pri_w=pri
                if o['weights']==2: aux=o['auxw']*(w.detach()*(q.detach()*aux_losses(z,yy)).sum(1)).mean(); note('wstd',w.detach().std())
                gr=named_gradients(pri_w+aux,params)
                note('conf',q.detach().max(1).values.mean()); note('aux',aux.detach())
            for n,p in params.items(): p.grad=gr.get(n)
            if maxl and due: pend=(xx,yy,q,logit,InnerStep(net,opt,gr),w)
            opt.step(); t+=1; note('pri',pri.detach())
        if maxl:
            net.eval(); gen.eval()
            with torch.no_grad():
                q=[]; 
                for i in range(0,len(xv),256):
                    inp=net(xv[i:i+256])[2] if o['gen']=='features' else xv[i:i+256]
                    q.append(masked_softmax(gen(inp),MASK[yv[i:i+256]],o['temp']))
                q=torch.cat(q); logs.setdefault('bits',[]).append(round(mi(q,yv)[1],3)); logs.setdefault('ami',[]).append(round(ami_within(q.argmax(1),cv,yv),3))
            gen.train()
    net.eval()
    with torch.no_grad(): l=torch.cat([net(xv[i:i+256])[0] for i in range(0,len(xv),256)])
    acc=(l.argmax(1)==yv).float().mean().item()
    n=steps//o['epochs']
    summ={k:[round(float(np.mean(v[:len(v)//4+1])),5),round(float(np.mean(v[-len(v)//4:])),5)] for k,v in acc_log.items()}
    if mode in('human','random','kmeans'): logs['ami_train']=round(ami_within(lab,c,y),3)
    return dict(acc=acc,auroc=auroc(l.softmax(1),yv),ce=F.cross_entropy(l,yv).item(),sec=time.time()-t0,logs=logs,summ=summ)
def labels_of(o,logit,yy,g,note):
    mk=MASK[yy]
    if o['balance']=='sinkhorn': q=sinkhorn(logit,mk,o['temp'])
    else: q=masked_softmax(logit,mk,o['temp'])
    if o['hard']:
        z=q.clamp_min(1e-9).log().masked_fill(~mk,-1e9)
        if o['hard']==2: z=z-torch.rand(z.shape,generator=g).clamp_min(1e-9).log().neg().log()
        h=F.one_hot(z.argmax(1),A).float(); q=h+q-q.detach()
    return q
def guard(o,gen,logit,q,yy,px,g,note):
    if o['balance']=='entropy' and o['entw'] and not o['info']:
        m=q.mean(0); return o['entw']*torch.xlogy(m,m.clamp_min(1e-9)).sum()
    if o['info']:
        p=masked_softmax(logit,MASK[yy]); lp=p.clamp_min(1e-9).log()
        cond=-(p*lp).sum(1).mean(); m=p.mean(0); marg=-(m*m.clamp_min(1e-9).log()).sum()
        out=o['info']*(cond-o['infoH']*marg)
        if o['cons'] and o['gen']!='features':
            xj=jitter(px,g); p2=masked_softmax(gen(xj),MASK[yy]); out=out-o['cons']*(p.detach()*p2.clamp_min(1e-9).log()).sum(1).mean()
        return out
    return 0.
def rand_labels(y,g):
    st=np.cumsum([0]+PSI); return torch.tensor([st[k]+int(torch.randint(PSI[k],(1,),generator=g)) for k in y.tolist()])
def kmeans(x,y,seed):
    from scipy.cluster.vq import kmeans2
    p=F.adaptive_avg_pool2d(x,8).flatten(1).double().numpy(); st=np.cumsum([0]+PSI); out=torch.zeros(len(y),dtype=torch.long)
    for k in range(K):
        s=(y==k).numpy(); out[torch.from_numpy(s)]=torch.from_numpy(kmeans2(p[s],PSI[k],iter=50,minit='++',seed=np.random.default_rng(seed))[1]).long()+int(st[k])
    return out
DEF['kinit']=0; DEF['gconst']=0
if __name__=='__main__':
    import os
    out=sys.argv[1]; seeds=[int(s) for s in sys.argv[2].split(',')]
    have={}
    if os.path.exists(out):
        for l in open(out):
            r=json.loads(l); have[(r['name'],r['seed'])]=r
    for s in seeds:
        for spec in sys.argv[3:]:
            if (spec,s) in have: continue
            head,_,rest=spec.partition(':')
            o={}
            for kv in filter(None,rest.split(',')):
                k,v=kv.split('='); o[k]=type(DEF[k])(float(v)) if not isinstance(DEF[k],str) else v
            o['mode']=head
            try: r=run(o,s)
            except Exception as e:
                import traceback; traceback.print_exc(); continue
            r.update(name=spec,seed=s); have[(spec,s)]=r
            with open(out,'a') as f: f.write(json.dumps(r)+'\n')
            print(spec,s,f"acc {r['acc']:.3f} auroc {r['auroc']:.3f} ce {r['ce']:.3f} {r['sec']:.0f}s",r['logs'],r['summ'],flush=True)
